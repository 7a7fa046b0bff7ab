"""The closed list of reasons for which a message is refused. Each is a counter."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Refusal", "Refused"]


class Refusal(StrEnum):
    """Why a message was answered with an error, nothing having changed."""

    UNKNOWN = "unknown"  # a request that is not understood or was not offered
    TOO_SHORT = "too_short"  # the payload is smaller than its structure
    DESCRIPTORS = "descriptors"  # too many, missing, or none belongs here
    DESCRIPTOR_KIND = "descriptor_kind"  # neither an event descriptor, a socket nor a pipe
    FEATURES = "features"  # bits that were not offered, or lack what they stand on
    PROTOCOL_FEATURES = "protocol_features"
    QUEUE_INDEX = "queue_index"
    QUEUE_SIZE = "queue_size"
    QUEUE_ADDRESS = "queue_address"  # outside memory, or not aligned
    QUEUE_RUNNING = "queue_running"  # cannot change while the ring runs
    REGION = "region"  # empty, overflowing, overlapping, unknown, or too many
    REGION_FILE = "region_file"  # wrong kind, too short, not writable, cannot be mapped
    CONFIG = "config"  # offset or size beyond the space
    INFLIGHT = "inflight"  # too small, or not a file
    NOT_NEGOTIATED = "not_negotiated"  # its protocol feature, or bit 30, is missing


class Refused(Exception):
    """A message that is answered with an error."""

    def __init__(self, why: Refusal, detail: str = "") -> None:
        super().__init__(f"{why.value}: {detail}" if detail else why.value)
        self.why = why

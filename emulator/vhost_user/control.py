"""What can be asked of a running device, as one JSON object a line, and the answers.

Nothing here waits: a caller that wants fresh statistics asks for them, and then looks until their
`number` has grown.

| request | answer, beside `ok` |
|---|---|
| `{"command": "balloon", "bytes": N}` | target_bytes |
| `{"command": "stats", "refresh": true}` | asked, pending, timed_out, number, age_ns, values |
| `{"command": "stats"}` | the same without a new request |
| `{"command": "hint", "action": "start", "stop", "done" or "status"}` | hinting |
| `{"command": "status"}` | features, roles of queues, balloon, counters |

Where a request cannot be served: `{"ok": false, "error": "..."}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from emulator.virtio.balloon import BalloonDevice
from emulator.virtio.features import PFN_BYTES, Feature, QueueRole
from emulator.virtio.hint_queue import DONE, STOP

__all__ = ["Control", "ControlError"]

LINE_BYTES_MAX = 4096
"""A request is far shorter; a longer line is none."""


class ControlError(Exception):
    """A request cannot be served; the sentence says why."""


class Control:
    """Serves requests on one device."""

    def __init__(
        self,
        device: BalloonDevice,
        *,
        interrupt: Callable[[int], None],
        lock: AbstractContextManager[Any] | None = None,
    ) -> None:
        """`interrupt(index)` sends the driver a used-buffer notification of a queue; `lock` is
        held while the device is used, where more than one thread does."""
        self._device = device
        self._interrupt = interrupt
        self._lock = lock or nullcontext()
        self._commands: Mapping[str, Callable[[dict[str, Any], int], dict[str, Any]]] = {
            "balloon": self._balloon,
            "stats": self._stats,
            "hint": self._hint,
            "status": self._status,
        }

    def answer(self, line: bytes, now_ns: int) -> bytes:
        """The answer to one line, itself a line; never an exception for what is in `line`."""
        try:
            answer = {"ok": True, **self.serve(_parse(line), now_ns)}
        except ControlError as error:
            answer = {"ok": False, "error": str(error)}
        return json.dumps(answer, sort_keys=True).encode() + b"\n"

    def serve(self, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
        """The answer to a request as an object; `ControlError` where it cannot be served."""
        command = request.get("command")
        serve = self._commands.get(command) if isinstance(command, str) else None
        if serve is None:
            raise ControlError(f"`command` is one of: {', '.join(self._commands)}")
        with self._lock:
            return serve(request, now_ns)

    def _balloon(self, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
        size_bytes = request.get("bytes")
        if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
            raise ControlError("`bytes` is the size of the balloon, an integer of 0 or more")
        memory_bytes = self._device.memory.size_bytes
        if memory_bytes and size_bytes > memory_bytes:
            raise ControlError(f"the guest has {memory_bytes} bytes; write at most so many")
        if size_bytes // PFN_BYTES >= 1 << 32:
            raise ControlError("a balloon holds less than 16 TiB; write a smaller size")
        self._device.set_target(size_bytes // PFN_BYTES)
        return {"target_bytes": self._device.config.num_pages * PFN_BYTES}

    def _stats(self, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
        device = self._device
        if not device.features & Feature.STATS_VQ:
            raise ControlError("the driver has not negotiated statistics")
        statistics = device.queues.statistics
        asked = None
        if request.get("refresh") is True:
            sent = device.ask_statistics(now_ns)
            asked = sent.asked.value
            if sent.notify:
                self._interrupt(sent.index)
        snapshot = statistics.snapshot
        return {
            "asked": asked,
            "pending": statistics.pending,
            "timed_out": statistics.timed_out(now_ns),
            "number": snapshot.number,
            "age_ns": now_ns - snapshot.time_ns if snapshot.number else None,
            "values": snapshot.values,
        }

    def _hint(self, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
        device = self._device
        if not device.features & Feature.FREE_PAGE_HINT:
            raise ControlError("the driver has not negotiated free page hinting")
        match request.get("action", "status"):
            case "start":
                device.start_hinting()
            case "stop":
                device.end_hinting(done=False)
            case "done":
                device.end_hinting()
            case "status":
                pass
            case _:
                raise ControlError("`action` is one of: start, stop, done, status")
        return {"hinting": self._hinting()}

    def _hinting(self) -> dict[str, Any]:
        hint = self._device.queues.hint
        names = {STOP: "stop", DONE: "done"}
        return {
            "command": names.get(hint.command, "round"),
            "command_id": hint.command,
            "active": hint.active,
            **hint.counters(),
        }

    def _status(self, request: dict[str, Any], now_ns: int) -> dict[str, Any]:
        device, config = self._device, self._device.config
        return {
            "features": [str(each.name).lower() for each in Feature if device.features & each],
            "queues": {
                role.name.lower(): device.index_of(role)
                for role in QueueRole
                if device.index_of(role) is not None
            },
            "memory_bytes": device.memory.size_bytes,
            "target_bytes": config.num_pages * PFN_BYTES,
            "actual_bytes": config.actual * PFN_BYTES,
            "actual_stale": config.actual_stale,
            "held_bytes": device.queues.inflate.held_pages * PFN_BYTES,
            "hinting": self._hinting(),
            "counters": device.counters(),
        }


def _parse(line: bytes) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise ControlError(f"a request is at most {LINE_BYTES_MAX} bytes long")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("a request is a JSON object on one line") from error
    if not isinstance(request, dict):
        raise ControlError("a request is a JSON object on one line")
    return request

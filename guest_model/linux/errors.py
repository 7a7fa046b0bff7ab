"""What keeps a real guest from running on this machine."""

from __future__ import annotations


class GuestUnavailableError(Exception):
    """This machine lacks something; the sentence says what, and what to install or to write."""

    exit_code = 3


class GuestFailedError(Exception):
    """The guest did not do what it was to do; the sentence holds what its console said last."""

    exit_code = 3

"""What keeps a real guest from running on this machine."""

from __future__ import annotations


class GuestUnavailableError(Exception):
    """This machine lacks something; the sentence says what, and what to install or to write."""

    exit_code = 3


class GuestFailedError(Exception):
    """The guest did not do what it was to do.

    `what` happened, `shown` is what its console says of it, `remedy` is the cause, where it is
    known, and what to do: all of them together are the text.
    """

    exit_code = 3

    def __init__(self, what: str, shown: str = "", remedy: str = "") -> None:
        self.what, self.shown, self.remedy = what, shown, remedy
        said = f"; its console says:\n{shown}\n" if shown else "; "
        super().__init__(f"{what}{said}{remedy}" if remedy else what)

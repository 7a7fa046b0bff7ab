"""What a guest's console said, kept in bounds, and what of it tells why a guest died."""

from __future__ import annotations

import re
from collections import deque
from typing import NamedTuple

from guest_model.linux.errors import GuestFailedError

FIRST_LINES = 40
"""From the first line of trouble on, that an error quotes."""
LAST_LINES = 12
"""Of the end, that an error quotes."""
MAX_LINE = 300
"""Characters of a line that are kept."""
TROUBLE = re.compile(
    r"Kernel panic - not syncing|BUG: |kernel BUG at |Oops: |Internal error: |general protection"
    r"|Unable to handle kernel|Out of memory and no killable|double fault"
    r"|failed, errno ?=|Segfault with no mm|ptrace\b.*\bfailed"
)
"""The kernel's own words at the start of its end; User-mode Linux tells a failed call by errno."""


class _Cause(NamedTuple):
    """What a console shows, and what it means: cause and remedy, a sentence."""

    shown: re.Pattern[str]
    sentence: str


_CAUSES = (
    _Cause(
        re.compile(r"ptrace set fp regs failed, errno = 14"),
        "this kernel sets fewer registers than this processor has, and our ptrace does not reach "
        "it: it is linked statically. Use a release that fpr fetches, such as "
        "`--set guest.kernel=7.2`",
    ),
    _Cause(
        re.compile(r"version `GLIBC_[\d.]+' not found"),
        "this kernel wants a newer C library than this machine has. Let fpr fetch it with its own: "
        "leave --kernel out and write `--set guest.kernel=` and its release",
    ),
    _Cause(
        re.compile(r"not mounted noexec|PROT_EXEC mmap in .*(not permitted|Permission denied)"),
        "the guest's memory has to be executable, and where it lies is mounted noexec: as root, "
        "`mount -o remount,exec /dev/shm`",
    ),
    _Cause(
        re.compile(r"ptrace\b.*errno ?= ?(1|13)\b|ptrace.*(Operation not permitted)"),
        "the guest's kernel may not trace its processes: in a container, allow ptrace "
        "(`--cap-add SYS_PTRACE`, or a seccomp profile that has it)",
    ),
    _Cause(
        re.compile(r"No space left on device|Cannot allocate memory|errno ?= ?(12|28)\b"),
        "the guest's memory does not fit: make room in /dev/shm, or write a smaller guest.memory",
    ),
)
_OTHERWISE = (
    "`fpr doctor` boots a guest of each kind; another kernel may do: `--set guest.kernel=7.2`, or "
    "--kernel PATH"
)


class Console:
    """Takes lines as they come; keeps the first ones of trouble, and the last ones."""

    def __init__(self) -> None:
        self._first: list[str] = []
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._left_out = 0

    def add(self, line: str) -> None:
        """A line of the guest's."""
        line = line[:MAX_LINE]
        if not self._first and TROUBLE.search(line):
            self._last.clear()
            self._first.append(line)
        elif self._first and len(self._first) < FIRST_LINES:
            self._first.append(line)
        else:
            self._left_out += bool(self._first) and len(self._last) == LAST_LINES
            self._last.append(line)

    def excerpt(self) -> str:
        """For an error: from the first line of trouble on, else the end."""
        between = [f"... {self._left_out} lines left out ..."] if self._left_out else []
        return "\n".join([*self._first, *between, *self._last])

    def error(self, what: str) -> GuestFailedError:
        """The error for `what` happened to the guest."""
        shown = self.excerpt()
        cause = next((each.sentence for each in _CAUSES if each.shown.search(shown)), _OTHERWISE)
        return GuestFailedError(
            what if shown else f"{what}, and its console is empty", shown, cause
        )

"""What holds for every test."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from emulator.cli.log import configure

settings.register_profile("fpr", deadline=None)  # a busy machine is slow, which proves nothing
settings.load_profile("fpr")

# A shell ignores Ctrl-C for what it starts in the background, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _log_as_the_command_does() -> None:
    """Logs go to standard error, also where a test invokes a command without its `main`."""
    configure(0)

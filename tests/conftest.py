"""What holds for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings

from emulator.cli.log import configure

settings.register_profile("fpr", deadline=None)  # a busy machine is slow, which proves nothing
settings.load_profile("fpr")


@pytest.fixture(autouse=True)
def _log_as_the_command_does() -> None:
    """Logs go to standard error, also where a test invokes a command without its `main`."""
    configure(0)

"""What holds for every test."""

from __future__ import annotations

import pytest

from emulator.cli.log import configure


@pytest.fixture(autouse=True)
def _log_as_the_command_does() -> None:
    """Logs go to standard error, also where a test invokes a command without its `main`."""
    configure(0)

"""Tests that boot a real kernel: skipped, with the reason, where it or its tools cannot be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guest_model.linux.compiled import agent, keeper
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import Kernel, find_kernel
from guest_model.linux.machine import SHARED_MEMORY


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """A User-mode Linux kernel; what runs with it is built."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip(f"{SHARED_MEMORY} cannot be written to, and a guest's memory lies there")
    try:
        agent(), keeper()
        return find_kernel()
    except GuestUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture
def idle_yaml(tmp_path: Path) -> Path:
    """A guest of 512 MiB that does nothing."""
    path = tmp_path / "idle.yaml"
    path.write_text("guest: {memory: 512MiB}\nphases:\n  - {duration: 7s, run: [{kind: idle}]}\n")
    return path

"""Tests that boot a real kernel: skipped, with the reason, where it or its tools cannot be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from guest_model.linux.compiled import agent, keeper, whole_xstate
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import Kernel, find_kernel
from guest_model.linux.releases import DEFAULT, RELEASES
from guest_model.linux.work_folder import SHARED_MEMORY

ALL = "FPR_TEST_ALL"
"""In the environment, not empty: hold the device to each release."""
OTHERS = "FPR_GUEST_KERNELS"
"""In the environment: further kernels to hold the device to, releases or paths of a linux.uml, with
colons between them."""


def kernel_of(executable: Path | None = None, version: str = DEFAULT.series) -> Kernel:
    """The kernel; the test is skipped, with the reason, where it or its tools cannot be had."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        pytest.skip(f"{SHARED_MEMORY} cannot be written to, and a guest's memory lies there")
    try:
        agent(), keeper(), whole_xstate()
        return find_kernel(executable, version=version)
    except GuestUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kernel() -> Kernel:
    """The User-mode Linux kernel that `fpr linux` takes; the agent is built beside it."""
    return kernel_of()


@pytest.fixture(scope="session", params=[each.series for each in RELEASES])
def each_release(request: pytest.FixtureRequest) -> Kernel:
    """A kernel of each release that a guest can be: what depends on the kernel."""
    return kernel_of(version=request.param)


@pytest.fixture(
    scope="session",
    params=[
        *(each.series for each in (RELEASES if os.environ.get(ALL) else [DEFAULT])),
        *filter(None, os.environ.get(OTHERS, "").split(":")),
    ],
)
def each_kernel(request: pytest.FixtureRequest) -> Kernel:
    """That of `kernel`, and those that the environment asks for: what depends on our device."""
    if "/" in request.param:
        return kernel_of(Path(request.param))
    return kernel_of(version=request.param)


@pytest.fixture
def idle_yaml(tmp_path: Path) -> Path:
    """A guest of 512 MiB that does nothing."""
    path = tmp_path / "idle.yaml"
    path.write_text("guest: {memory: 512MiB}\nphases:\n  - {duration: 7s, run: [{kind: idle}]}\n")
    return path

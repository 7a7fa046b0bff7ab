"""Guests on a processor with AMX, which `amx_host.c` plays on one without."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from emulator.analysis.real_guest import run_real
from emulator.scenario.load import parse
from emulator.scenario.model import Scenario
from guest_model.linux import machine
from guest_model.linux.compiled import whole_xstate
from guest_model.linux.errors import GuestFailedError
from guest_model.linux.kernel import Kernel

SOURCE = Path(__file__).with_name("amx_host.c")
SETS_TOO_LITTLE = ("6.1", "6.12")
"""Releases that set registers by a buffer of a fixed size; 7.2 asks for the size."""


@pytest.fixture(scope="module")
def amx_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that plays such a host to what it is preloaded into."""
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")))
    built = tmp_path_factory.mktemp("amx") / "amx_host.so"
    flags = ["-std=gnu11", "-O2", "-fPIC", "-shared", "-nostdlib", "-Wall", "-Werror"]
    subprocess.run([compiler, *flags, "-o", str(built), str(SOURCE)], check=True)
    return built


@pytest.fixture
def scenario() -> Scenario:
    """Long enough for a first pass."""
    text = "guest: {kind: linux, memory: 256MiB}\nphases: [{duration: 3s, run: [{kind: idle}]}]\n"
    return parse(text.encode(), "test.yaml", Path())


def test_a_guest_boots_and_reports_with_amx(
    each_release: Kernel, amx_host: Path, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks' tiles stay whole: the host refuses registers with tiles that are no task's."""
    monkeypatch.setattr(machine, "preloaded", lambda: [whole_xstate(), amx_host])
    run = run_real(scenario, each_release, limit_ns=scenario.expected_ns)
    assert run.complete
    assert sum(int(batch.blocks[:, 1].sum()) for batch in run.batches) > 128 << 20


def test_the_played_host_is_what_kernels_fail_on(
    each_release: Kernel, amx_host: Path, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without our ptrace, the releases that need it panic as they do on such a processor."""
    monkeypatch.setattr(machine, "preloaded", lambda: [amx_host])
    if each_release.release is None or each_release.release.series not in SETS_TOO_LITTLE:
        assert run_real(scenario, each_release, limit_ns=scenario.expected_ns).complete
        return
    with pytest.raises(GuestFailedError, match="ptrace set fp regs failed, errno = 14"):
        run_real(scenario, each_release, limit_ns=scenario.expected_ns)

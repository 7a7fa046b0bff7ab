"""`fpr doctor` boots the kernels that are here."""

from __future__ import annotations

import json

import pytest

from emulator.cli.main import Exit, run
from guest_model.linux.kernel import Kernel


def test_each_release_at_hand_is_booted(
    each_release: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    """The finding names the version that ran."""
    assert run(["doctor", "--json"]) == Exit.OK
    checks = {each["name"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert each_release.release is not None
    found = checks[f"linux-{each_release.release.series}"]
    assert found["ok"], found
    assert f"{each_release.version} boots, and its balloon driver registers" in found["found"]
    assert {"qemu", "kvm"} <= checks.keys()

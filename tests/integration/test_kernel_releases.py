"""Releases of Linux in scenarios: which are run, and what results say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emulator.cli.main import run
from emulator.scenario.metrics import METRICS

SMALL = """
guest: {memory: 256MiB, vcpus: 1, boot_used: 8MiB}
phases: [{run: [{kind: tmpfs, size: 16MiB, keep: 1s}]}, {duration: 5s}]
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A scenario."""
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def text_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command that succeeds prints."""
    assert run(["-q", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("release", "rules", "said"),
    [
        ("5.14", "5.14", "Linux 5.14, taken as the newest 5.14.y, by the rules of 5.14"),
        ("6.6.87", "6.6.37", "Linux 6.6.87, by the rules of 6.6.37"),
        ("6.12", "6.12.65", "Linux 6.12, taken as the newest 6.12.y, by the rules of 6.12.65"),
        ("6.8.12-4-pve", "6.8", "Linux 6.8.12-4-pve, by the rules of 6.8"),
        (
            "8.1",
            "7.2",
            "Linux 8.1, taken as the newest 8.1.y, by the rules of 7.2, the newest that are known",
        ),
    ],
)
def test_results_name_the_rules(
    small: Path, capsys: pytest.CaptureFixture[str], release: str, rules: str, said: str
) -> None:
    """In the text, in summary.json and on the page; no number of a summary is called so."""
    out = small / "out"
    file = small / "small.yaml"
    text = text_of(capsys, "run", file, "--set", f"guest.kernel={release}", "-o", out)
    assert f"kernel      {said}" in text.splitlines()
    guest = json.loads((out / "summary.json").read_bytes())["guest"]
    assert (guest["kernel"], guest["kernel_rules"]) == (release, rules)
    assert said in (out / "report.html").read_text()
    assert not {"guest.kernel", "guest.kernel_rules"} & METRICS


def test_releases_of_the_same_rules_do_the_same(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But for the name, and not of other rules: 6.13.12 has those of 6.10."""
    found = {}
    for release in ("6.10", "6.11.4", "6.13.12"):
        file, out = small / "small.yaml", small / release
        text_of(capsys, "run", file, "--set", f"guest.kernel={release}", "-o", out)
        summary = json.loads((out / "summary.json").read_bytes())
        for side in (summary, summary["control"]):
            assert side["guest"].pop("kernel") == release
            assert side["guest"]["kernel_rules"] == "6.10"
        found[release] = summary
    assert found["6.10"] == found["6.11.4"] == found["6.13.12"]


def test_each_kernel_of_several_vms_is_named(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A group may have another than the scenario's."""
    groups = "vms=[{count: 2}, {guest: {kernel: 6.1.96}}]"
    file, out = small / "small.yaml", small / "out"
    options = ("--set", "guest.kernel=6.8", "--set", groups, "--no-control")
    text = text_of(capsys, "run", file, *options, "-o", out)
    assert "by the rules of 6.8; Linux 6.1.96, by the rules of 5.18" in text
    vms = json.loads((out / "summary.json").read_bytes())["vms"]
    assert vms["kernels"] == {"6.8": "6.8", "6.1.96": "5.18"}


def test_a_comparison_of_kernels_names_their_rules(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that two that are the same are no surprise; one kernel is not worth a word."""
    axis, out = ("--vary", "guest.kernel=5.10,7.0"), small / "out"
    text = text_of(capsys, "compare", small / "small.yaml", *axis, "-j", 1, "-o", out)
    assert "Linux 5.10, taken as the newest 5.10.y, by the rules of 5.10" in text.splitlines()
    assert "Linux 7.0, taken as the newest 7.0.y, by the rules of 6.19" in text.splitlines()
    cells = json.loads((out / "compare.json").read_bytes())["cells"]
    assert [(cell["kernel"], cell["kernel_rules"]) for cell in cells] == [
        ("5.10", "5.10"),
        ("7.0", "6.19"),
    ]
    assert [cell["values"]["guest.kernel"] for cell in cells] == ["5.10", "7.0"]


def test_validate_names_the_rules(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where they are not the release's own."""
    out = text_of(capsys, "validate", small / "small.yaml", "--set", "guest.kernel=6.14")
    assert ", Linux 6.14 (rules of 6.14.7); " in out
    out = text_of(capsys, "validate", small / "small.yaml", "--set", "guest.kernel=7.2")
    assert ", Linux 7.2; " in out


def test_a_baseline_that_named_no_kernel_is_no_change(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results of fpr 0.1.0 are held against new ones as before; another kernel is a change."""
    file, old = small / "small.yaml", small / "old"
    text_of(capsys, "run", file, "-o", old)
    text_of(capsys, "run", file, "-o", small / "new")
    text_of(capsys, "run", file, "--set", "guest.kernel=6.1.192", "-o", small / "named")
    assert run(["gate", str(small / "new"), str(small / "named")]) == 1
    capsys.readouterr()
    summary = json.loads((old / "summary.json").read_bytes())
    for side in (summary, summary["control"]):
        del side["guest"]["kernel"], side["guest"]["kernel_rules"]
    (old / "summary.json").write_text(json.dumps(summary))
    assert "nothing is worse" in text_of(capsys, "gate", old, small / "new")

"""What is installed, and what a source distribution holds, is all that `fpr` needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.integration.conftest import ROOT, setuptools

PACKAGES = ("fpr", "emulator", "guest_model", "host_model")
SCENARIO = """
guest: {memory: 256MiB, vcpus: 1}
host: {costs: haswell-2630v3}
phases: [{run: [{kind: idle}], duration: 3s}]
"""


def test_an_installed_fpr_finds_its_cost_profiles(installed: Path, tmp_path: Path) -> None:
    """`costs: haswell-2630v3` means the same in any folder, without the checkout."""
    (tmp_path / "s.yaml").write_text(SCENARIO)
    done = subprocess.run(
        [
            *(sys.executable, "-P", "-m", "fpr"),
            *("run", "s.yaml", "--no-control", "--json"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["reporting"]["bytes"] > 0
    manifest = json.loads(next(tmp_path.glob("results/*/manifest.json")).read_text())
    assert manifest["scenario"]["host"]["costs"].startswith(str(installed))


def test_no_file_of_a_package_is_left_out(installed: Path) -> None:
    """What is neither Python nor the C core's source is data that something reads."""
    left_out = [
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and path.suffix in (".py", ".yaml", ".sh", ".c", ".h")
        and "native" not in path.relative_to(ROOT).parts[:-1]
        and not (installed / path.relative_to(ROOT)).exists()
    ]
    assert left_out == []


def test_a_source_distribution_can_be_built_from(tmp_path: Path) -> None:
    """It holds every source and header of the C core, and the profiles."""
    setuptools("egg_info", "--egg-base", tmp_path, "sdist", "--dist-dir", tmp_path)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for pattern in ("*.py", "*.[ch]", "*.yaml")
        for path in (ROOT / package).rglob(pattern)
    ]
    assert [path for path in wanted if path not in held] == []

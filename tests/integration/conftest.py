"""The packages as they are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emulator.native import _core

ROOT = Path(__file__).resolve().parents[2]


def setuptools(*arguments: object) -> None:
    """One of setuptools' commands, run on this checkout."""
    subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()"),
            *("--quiet", *map(str, arguments)),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages as a wheel holds them, with the C core of this checkout in its place."""
    place = tmp_path_factory.mktemp("installed")
    setuptools(
        *("egg_info", "--egg-base", place),
        *("build_py", "--build-lib", place),
    )
    core = Path(_core.__file__)
    (place / core.relative_to(ROOT)).write_bytes(core.read_bytes())
    return place

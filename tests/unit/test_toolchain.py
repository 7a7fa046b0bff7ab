"""What a fresh machine lacks is found, fetched from its distribution, or named with its remedy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.native import toolchain

SCRIPT = Path(toolchain.__file__)


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `apt-get` that hands out one package, once its lists are updated."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb to build a package with")
    root = tmp_path / "package"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: headers\nVersion: 1\nArchitecture: all\nMaintainer: a\nDescription: b\n"
    (root / "DEBIAN" / "control").write_text(control)
    header = root / "usr" / "include" / f"python{toolchain.VERSION}" / "Python.h"
    header.parent.mkdir(parents=True)
    header.write_text("#define FROM_THE_PACKAGE 1\n")
    archive = tmp_path / "headers_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", root, archive], check=True, capture_output=True)
    tool = tmp_path / "bin" / "apt-get"
    tool.parent.mkdir()
    lines = (
        "#!/bin/sh",
        f'echo "$@" >> "{tmp_path}/calls"',
        f'case "$*" in *update) touch "{tmp_path}/fresh"; exit 0 ;; esac',
        f'test -e "{tmp_path}/fresh" || exit 100',
        f'cp "{archive}" .',
    )
    tool.write_text("\n".join(lines) + "\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    return tmp_path


def test_a_package_comes_from_updated_lists_where_the_old_ones_fail(distribution: Path) -> None:
    """Stale or missing lists are replaced by lists of our own, not the machine's."""
    target = distribution / "target"
    target.mkdir()
    toolchain.unpack("headers", target)
    assert (target / "usr" / "include" / f"python{toolchain.VERSION}" / "Python.h").is_file()
    first, update, download = (distribution / "calls").read_text().splitlines()
    assert first == "--quiet=2 download headers"
    assert update.endswith("update")
    assert f"Dir::State::lists={target}/lists" in update
    assert download.endswith("download headers")


def test_headers_land_in_the_environment_where_distutils_looks(
    distribution: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without python3-dev, Python.h goes to the environment's `include`."""
    monkeypatch.setattr(
        toolchain,
        "compiles",
        lambda _compiler, source, include: (
            "Python.h" not in source or (include / "Python.h").is_file()
        ),
    )
    (distribution / "venv").mkdir()
    toolchain.provide_headers(distribution / "venv", ["cc"])
    assert "FROM_THE_PACKAGE" in (distribution / "venv" / "include" / "Python.h").read_text()
    assert [path.name for path in (distribution / "venv").iterdir()] == ["include"]


def test_a_machine_of_another_distribution_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no package can be unpacked, one line names the cause and the remedy."""
    monkeypatch.setattr(toolchain, "compiles", lambda _cc, source, _include: "Py" not in source)
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: name if name == "cc" else None)
    with pytest.raises(toolchain.Lacking, match=r"Python\.h is missing.*apt-get install python3"):
        toolchain.provide_headers(tmp_path, ["cc"])


def test_a_missing_compiler_ends_with_exit_code_3(tmp_path: Path) -> None:
    """Exit code 3: this machine lacks something; nothing was made."""
    done = subprocess.run(
        [sys.executable, "-I", SCRIPT, tmp_path / "venv"],
        env={"CC": "no-such-compiler", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == toolchain.LACKING
    assert done.stderr == "there is no C compiler no-such-compiler: apt-get install gcc\n"
    assert not (tmp_path / "venv").exists()


def test_a_missing_header_is_noticed_by_the_compiler_itself(tmp_path: Path) -> None:
    """The probe asks the compiler that will be used; it knows its own folders."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    assert toolchain.compiles(["cc"], "#include <stdio.h>\n", tmp_path)
    assert not toolchain.compiles(["cc"], "#include <no_such_header.h>\n", tmp_path)


def test_an_environment_without_pip_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where python3-venv is missing and its pip cannot be unpacked, either."""
    monkeypatch.setattr(toolchain, "_succeeds", lambda *_command, **_how: False)
    monkeypatch.setattr(toolchain.shutil, "which", lambda _name: None)
    with pytest.raises(toolchain.Lacking, match=r"pip is missing.*apt-get install python3-venv"):
        toolchain.make_environment(tmp_path / "venv")


PROJECT = """
[project]
dependencies = ["fpr-no-such-package"]
[project.optional-dependencies]
dev = ["fpr-no-such-tool"]
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """An environment whose Python is a script, `PYTHON`; beside it a project."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    return tmp_path / ".venv"


def make_python(environment: Path, script: str) -> None:
    """What stands for the environment's Python."""
    python = environment / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)


def test_packages_come_first_and_then_the_project(
    environment: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A line for each step, and nothing of what pip warns of."""
    make_python(environment, 'echo "WARNING: ignored" >&2; echo "$@" >> "$(dirname "$0")/calls"')
    toolchain.install(environment, environment.parent, "dev")
    pip = "-m pip install --quiet --disable-pip-version-check"
    assert (environment / "bin" / "calls").read_text().splitlines() == [
        f"{pip} fpr-no-such-package fpr-no-such-tool",
        f"{pip} --no-build-isolation --no-deps --editable {environment.parent}",
    ]
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err == "  installing 2 packages and what they need\n  building the C core\n"


def test_an_index_out_of_reach_is_told_in_the_words_of_pip(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them, and then what to do."""
    make_python(environment, f'exec "{sys.executable}" "$@"')
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # refuses at once
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(toolchain.Lacking) as caught:
        toolchain.install(environment, environment.parent, "dev")
    *words, remedy = str(caught.value).splitlines()
    assert any("Retrying" in line and "refused" in line for line in words)
    assert any("No matching distribution found for fpr-no-such-package" in line for line in words)
    assert remedy.startswith("packages could not be installed: check the network, and which index")


def test_a_core_that_cannot_be_built_shows_what_the_compiler_says(environment: Path) -> None:
    """It is not taken for a network that fails."""
    script = 'case "$*" in *editable*) echo "alloc.c:7: error: no such type"; exit 1 ;; esac'
    make_python(environment, script)
    with pytest.raises(toolchain.Lacking) as caught:
        toolchain.install(environment, environment.parent, "dev")
    assert str(caught.value).splitlines() == [
        "alloc.c:7: error: no such type",
        "the project could not be built: mend what the compiler names; then run this again",
    ]

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

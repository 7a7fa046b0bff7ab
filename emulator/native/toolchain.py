"""Make the virtual environment, and see that C extensions can be built in it.

Run as `python3 -I emulator/native/toolchain.py FOLDER`, before anything is installed: it takes the
standard library alone. Debian and Ubuntu keep pip for virtual environments and Python's C headers
in packages of their own, which a fresh machine lacks. Both are unpacked from there into FOLDER,
without root. With the name of an extra as well (`FOLDER dev`), the project in the current folder is
installed with it, editable, and the steps are told on standard error. What pip says is shown where
it fails. Exit code 3 if the machine lacks something, with the command that installs it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

LACKING = 3
INTERRUPTED = 130
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Lacking(Exception):
    """This machine lacks something; the message says what, and what to type."""


def _succeeds(command: Sequence[str | Path], cwd: Path | None = None, text: str = "") -> bool:
    done = subprocess.run(command, cwd=cwd, input=text, capture_output=True, text=True, check=False)
    return done.returncode == 0


def compiles(compiler: Sequence[str], source: str, include: Path) -> bool:
    """Whether the compiler finds what `source` includes, in the folders where distutils looks."""
    folders = ("-I", include, "-I", sysconfig.get_path("include"))
    return _succeeds([*compiler, *folders, "-x", "c", "-fsyntax-only", "-"], text=source)


def unpack(package: str, target: Path) -> None:
    """Download a package of this distribution, and unpack it below `target`."""
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise Lacking("this is neither Debian nor Ubuntu")
    lists = target / "lists"
    (lists / "partial").mkdir(parents=True)
    apt_get = ("apt-get", "--quiet=2")
    own_lists = ("-o", f"Dir::State::lists={lists}", "-o", "APT::Sandbox::User=root")
    if not _succeeds([*apt_get, "download", package], cwd=target) and not (
        # The machine has no package lists, or stale ones.
        _succeeds([*apt_get, *own_lists, "update"], cwd=target)
        and _succeeds([*apt_get, *own_lists, "download", package], cwd=target)
    ):
        raise Lacking(f"{package} cannot be downloaded")
    (archive,) = target.glob("*.deb")
    subprocess.run(["dpkg", "-x", archive, target], check=True)


def make_environment(folder: Path) -> None:
    """A virtual environment with pip, on machines without python3-venv, too."""
    python = folder / "bin" / "python"
    if python.exists() and _succeeds([python, "-m", "pip", "--version"]):
        return
    make = [sys.executable, "-m", "venv", "--clear", str(folder)]
    if _succeeds(make):
        return
    subprocess.run([*make, "--without-pip"], check=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            unpack("python3-pip-whl", Path(scratch))
        except Lacking as error:
            raise Lacking(f"pip is missing, {error}: apt-get install python3-venv") from error
        (wheel,) = Path(scratch).glob("usr/share/python-wheels/pip-*.whl")
        pip = (python, f"{wheel}/pip", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "install", "--no-index", wheel], check=True)


def need_compiler(compiler: Sequence[str]) -> None:
    """A C compiler with a C library is for the machine to bring."""
    if not shutil.which(compiler[0]):
        raise Lacking(f"there is no C compiler {compiler[0]}: apt-get install gcc")
    if not compiles(compiler, "#include <stdio.h>\n", Path()):
        raise Lacking("the C compiler has no C library: apt-get install libc6-dev")


def provide_headers(folder: Path, compiler: Sequence[str]) -> None:
    """Python.h, from the machine or else in the environment's own `include`."""
    include = folder / "include"
    probe = "#include <Python.h>\n"
    if compiles(compiler, probe, include):
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            unpack(f"libpython{VERSION}-dev", Path(scratch))
        except Lacking as error:
            raise Lacking(f"Python.h is missing, {error}: apt-get install python3-dev") from error
        headers = Path(scratch, "usr", "include")
        shutil.copytree(headers / f"python{VERSION}", include, dirs_exist_ok=True)
        for machine in headers.glob(f"*/python{VERSION}"):  # pyconfig.h of this architecture
            shutil.copytree(
                machine, include / machine.parent.name / machine.name, dirs_exist_ok=True
            )
    if not compiles(compiler, probe, include):
        raise Lacking("Python.h cannot be used: apt-get install python3-dev")


def install(folder: Path, project: Path, extra: str) -> None:
    """Install what the project asks for with `extra`, then the project itself, editable.

    In two steps, so that one that fails tells whether packages cannot be had, or C not be built.
    The project comes without build isolation: `extra` names what builds it.
    """
    described = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    packages = [*described["dependencies"], *described["optional-dependencies"][extra]]
    _tell(f"  installing {len(packages)} packages and what they need")
    _pip(
        folder,
        packages,
        "packages could not be installed: check the network, and which index pip asks "
        f"({folder.name}/bin/python -m pip config list); then run this again",
    )
    _tell("  building the C core")
    _pip(
        folder,
        ["--no-build-isolation", "--no-deps", "--editable", str(project)],
        "the project could not be built: mend what the compiler names; then run this again",
    )


def _pip(folder: Path, arguments: Sequence[str], remedy: str) -> None:
    """Install quietly; `Lacking` with all that pip said where it fails."""
    pip = (str(folder / "bin" / "python"), "-m", "pip", "install")
    command = [*pip, "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise Lacking(f"{done.stdout.rstrip()}\n{remedy}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prepare(folder: Path, compiler: Sequence[str], extra: str | None) -> None:
    """All of it; `Lacking` where something is missing."""
    started_s = time.monotonic()
    need_compiler(compiler)
    if extra:
        _tell(f"setting up {folder.name} with Python {VERSION} and the C compiler {compiler[0]}")
    make_environment(folder)
    provide_headers(folder, compiler)
    if extra:
        install(folder, Path.cwd(), extra)
        _tell(f"set up in {time.monotonic() - started_s:.0f} s")


def main() -> int:
    """Command line of this script."""
    folder, extra = Path(sys.argv[1]).absolute(), sys.argv[2:]
    try:
        prepare(folder, os.environ.get("CC", "cc").split(), extra[0] if extra else None)
    except Lacking as error:
        print(error, file=sys.stderr)
        return LACKING
    except KeyboardInterrupt:
        print("interrupted; the next try goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Finds a User-mode Linux kernel and its modules, or fetches Debian's without root."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.releases import Release, release_of

PACKAGE = "user-mode-linux"
DRIVER = "virtio_balloon"
FETCH_TIMEOUT_S = 300
_EXECUTABLE = Path("usr/bin/linux.uml")
_MODULES = Path("usr/lib/uml/modules")
_BY_PATH = "or give a kernel by --kernel PATH, and its modules by --modules DIR"


@dataclass(frozen=True, slots=True)
class Kernel:
    """`executable` is a linux.uml; `modules` is the folder that has its modules.dep."""

    executable: Path
    modules: Path

    @property
    def version(self) -> str:
        """As `uname -r` in the guest says."""
        return self.modules.name

    @property
    def release(self) -> Release | None:
        """Its row of the table; None where there is none, or the version is not known."""
        return release_of(self.version)


def cache_folder() -> Path:
    """Where fetched packages are unpacked: $XDG_CACHE_HOME/fpr/guest-kernel."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fpr" / "guest-kernel"


def find_kernel(executable: Path | None = None, modules: Path | None = None) -> Kernel:
    """The kernel at `executable`, else one in the cache, else an installed one, else Debian's.

    `modules` has modules.dep, or folders by version that do; None: where the package has them,
    relative to the executable. Raises `GuestUnavailableError` where there is none.
    """
    if executable is not None:
        return _by_path(executable, modules)
    for root in (cache_folder(), Path("/")):
        if (kernel := _below(root)) is not None:
            return kernel
    return fetch_kernel()


def fetch_kernel() -> Kernel:
    """Download the Debian package and unpack it into the cache; the cached one if it is there."""
    folder = cache_folder()
    if (kernel := _below(folder)) is not None:
        return kernel
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise GuestUnavailableError(
                f"a real guest needs User-mode Linux, and without {tool} it cannot be fetched: "
                f"install the package {PACKAGE} of Debian 12, {_BY_PATH}"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    structlog.get_logger().info("fetching the guest's kernel", package=PACKAGE, into=str(folder))
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as name:
        work = Path(name)
        _download(work)
        packages = sorted(work.glob("*.deb"))
        if not packages:
            raise GuestUnavailableError(
                f"apt-get brought no package; install {PACKAGE}, {_BY_PATH}"
            )
        _run(["dpkg", "-x", packages[-1].name, "root"], work)
        found = _below(work / "root")
        if found is None:
            raise GuestUnavailableError(
                f"{packages[-1].name} has no {_EXECUTABLE} with a module {DRIVER}: give a kernel "
                "by --kernel PATH, and its modules by --modules DIR"
            )
        try:
            (work / "root").rename(folder)
        except OSError:  # somebody else was faster
            if _below(folder) is None:
                raise
    kernel = _below(folder)
    assert kernel is not None
    return kernel


def _below(root: Path) -> Kernel | None:
    executable = root / _EXECUTABLE
    modules = _module_folder(root / _MODULES)
    if modules is None or not os.access(executable, os.X_OK):
        return None
    return Kernel(executable, modules)


def _by_path(executable: Path, modules: Path | None) -> Kernel:
    executable = executable.absolute()
    if not executable.is_file() or not os.access(executable, os.X_OK):
        raise GuestUnavailableError(
            f"{executable}: cannot be executed; write the path of a linux.uml"
        )
    where = executable.parents[2] / _MODULES if modules is None else modules.absolute()
    folder = _module_folder(where)
    if folder is None:
        raise GuestUnavailableError(
            f"{where}: has no modules.dep that knows {DRIVER}; write by --modules the folder with "
            "the modules of this kernel"
        )
    return Kernel(executable, folder)


def _module_folder(where: Path) -> Path | None:
    """The folder itself or the newest of those in it that has the balloon's driver."""
    below = sorted(where.iterdir(), reverse=True) if where.is_dir() else []
    return next((each for each in (where, *below) if _knows_driver(each)), None)


def _knows_driver(folder: Path) -> bool:
    table = folder / "modules.dep"
    return table.is_file() and f"/{DRIVER}.ko" in table.read_text(errors="replace")


def _download(work: Path) -> None:
    """By the machine's lists of packages; where there are none, or they are old, by new ones."""
    try:
        _run(["apt-get", "download", PACKAGE], work)
    except GuestUnavailableError:
        own = [f"-oDir::State={work / 'state'}", f"-oDir::Cache={work / 'cache'}"]
        for name in ("state/lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        _run(["apt-get", *own, "update"], work)
        _run(["apt-get", *own, "download", PACKAGE], work)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=FETCH_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GuestUnavailableError(
            f"`{' '.join(command)}` did not end in {FETCH_TIMEOUT_S} s; try again, {_BY_PATH}"
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no word why"]
        raise GuestUnavailableError(
            f"`{' '.join(command)}`: {lines[-1]}; install {PACKAGE}, {_BY_PATH}"
        )

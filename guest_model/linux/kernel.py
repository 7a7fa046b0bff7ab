"""Finds a User-mode Linux kernel and its modules, or fetches Debian's without root."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from guest_model.linux import debian
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.own_libc import host_glibc, library_of, use_own_library
from guest_model.linux.releases import DEFAULT, RELEASES, Release, release_of

DRIVER = "virtio_balloon"
_EXECUTABLE = Path("usr/bin/linux.uml")
_MODULES = Path("usr/lib/uml/modules")


@dataclass(frozen=True, slots=True)
class Kernel:
    """`executable` is a linux.uml; `modules` is the folder that has its modules.dep.

    `library`: the folder of a C library of its own, in which it is to be started; None: the
    machine's.
    """

    executable: Path
    modules: Path
    library: Path | None = None

    @property
    def version(self) -> str:
        """As `uname -r` in the guest says."""
        return self.modules.name

    @property
    def release(self) -> Release | None:
        """Its row of the table; None where there is none, or the version is not known."""
        return release_of(self.version)


def cache_folder() -> Path:
    """Where fetched packages are unpacked, each release by itself: $XDG_CACHE_HOME/fpr/kernels."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fpr" / "kernels"


def find_kernel(
    executable: Path | None = None, modules: Path | None = None, version: str = DEFAULT.series
) -> Kernel:
    """The kernel at `executable`; else one of `version`: cached, installed, or Debian's.

    `modules` has modules.dep, or folders by version that do; None: where the package has them,
    relative to the executable. `version` is a release such as "6.12": its series counts. Raises
    `GuestUnavailableError` where there is none.
    """
    if executable is not None:
        return _by_path(executable, modules)
    release = release_of(version)
    if release is None:
        known = ", ".join(each.series for each in RELEASES)
        raise GuestUnavailableError(
            f"guest.kernel: there is no package of Linux {version} to run as a guest, only of "
            f"{known}; write one of these, {debian.BY_PATH}"
        )
    if (kernel := _at_hand(release)) is not None:
        return kernel
    try:
        return fetch_kernel(release)
    except GuestUnavailableError as error:
        here = [each.release.series for each in kernels_at_hand() if each.release is not None]
        if not here:
            raise
        raise GuestUnavailableError(
            f"{error}; what is here is Linux {' and '.join(here)}: write "
            f"`--set guest.kernel={here[0]}`"
        ) from error


def kernels_at_hand() -> Iterator[Kernel]:
    """The cached or installed kernel of each release that has one; nothing is fetched."""
    for release in RELEASES:
        if (kernel := _at_hand(release)) is not None:
            yield kernel


def _at_hand(release: Release) -> Kernel | None:
    for root in (cache_folder() / release.series, Path("/")):
        if (kernel := _below(root, release)) is not None:
            return kernel
    return None


def fetch_kernel(release: Release = DEFAULT) -> Kernel:
    """Download Debian's packages and unpack them into the cache; the cached kernel if it is there.

    Where the machine's C library is older than the kernel wants, or another one, Debian's is
    unpacked beside it.
    """
    folder = cache_folder() / release.series
    if (kernel := _below(folder, release)) is not None:
        return kernel
    if platform.machine() != "x86_64":
        raise GuestUnavailableError(
            f"User-mode Linux runs on x86-64, and this machine is {platform.machine()}: use "
            "another machine, or run the scenario on the model"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    structlog.get_logger().info(
        "fetching the guest's kernel",
        package=debian.PACKAGE,
        release=release.series,
        into=str(folder),
    )
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as name:
        work = Path(name)
        _unpack(release, work)
        try:
            (work / "root").rename(folder)
        except OSError:  # another process was faster
            if _below(folder, release) is None:
                raise
    kernel = _below(folder, release)
    assert kernel is not None
    return kernel


def _unpack(release: Release, work: Path) -> None:
    """The packages, in work/root."""
    own_libc = host_glibc() < release.libc
    packages = debian.download(release, work, libc=own_libc)
    for package in packages:
        debian.run(["dpkg", "-x", package.name, "root"], work, release)
    root = work / "root"
    if _below(root, release) is None:
        raise GuestUnavailableError(
            f"{packages[0].name} has no {_EXECUTABLE} of Linux {release.series} with a module "
            f"{DRIVER}; {debian.remedy(release)}"
        )
    if own_libc:
        try:
            use_own_library(root / _EXECUTABLE, root)
        except ValueError as error:
            raise GuestUnavailableError(f"{error}; {debian.remedy(release)}") from error


def _below(root: Path, release: Release) -> Kernel | None:
    executable = root / _EXECUTABLE
    modules = _module_folder(root / _MODULES, release)
    if modules is None or not os.access(executable, os.X_OK):
        return None
    return Kernel(executable, modules, library_of(executable, root))


def _by_path(executable: Path, modules: Path | None) -> Kernel:
    executable = executable.absolute()
    if not executable.is_file() or not os.access(executable, os.X_OK):
        raise GuestUnavailableError(
            f"{executable}: cannot be executed; write the path of a linux.uml"
        )
    root = executable.parents[min(2, len(executable.parents) - 1)]
    where = root / _MODULES if modules is None else modules.absolute()
    folder = _module_folder(where)
    if folder is None:
        raise GuestUnavailableError(
            f"{where}: has no modules.dep that knows {DRIVER}; write by --modules the folder with "
            "the modules of this kernel"
        )
    return Kernel(executable, folder, library_of(executable, root))


def _module_folder(where: Path, release: Release | None = None) -> Path | None:
    """The folder itself or the newest of those in it that has the balloon's driver.

    `release`: of that release alone.
    """
    below = sorted(where.iterdir(), reverse=True) if where.is_dir() else []
    fits = (each for each in (where, *below) if release in (None, release_of(each.name)))
    return next(filter(_knows_driver, fits), None)


def _knows_driver(folder: Path) -> bool:
    table = folder / "modules.dep"
    return table.is_file() and f"/{DRIVER}.ko" in table.read_text(errors="replace")

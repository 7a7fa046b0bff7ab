"""How a kernel is found and fetched, with programs in the place of apt's."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from guest_model.linux import debian, kernel
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import fetch_kernel, find_kernel, kernels_at_hand
from guest_model.linux.own_libc import LOADER, interpreter, library_of, use_own_library
from guest_model.linux.releases import DEFAULT, RELEASES, Release, release_of

SID = RELEASES[-1]
APT = """#!/bin/sh
echo "$(basename "$0") $*" >> {log}
case "$*" in
    *indextargets*) {mirrors} ;;
    *madison*) {madison} ;;
    *update*) {update} ;;
    *download*) {download} ;;
esac
"""
MIRROR = "http://mirror.example/debian"
MADISON = "echo ' user-mode-linux | {version} | http://mirror.example/debian sid/main Packages'"
BRINGS = "touch user-mode-linux_1_amd64.deb libc6_1_amd64.deb"


def apt(folder: Path, monkeypatch: pytest.MonkeyPatch, **does: str) -> Path:
    """Put programs first in PATH that only say and do this; the file of what they were told."""
    log = folder / "log"
    does = {"mirrors": f"echo {MIRROR}/", "madison": ":", "update": ":", "download": BRINGS, **does}
    (folder / "bin").mkdir()
    for name in ("apt-get", "apt-cache"):
        program = folder / "bin" / name
        program.write_text(APT.format(log=log, **does))
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")
    return log


def test_the_machines_own_lists_are_taken_where_they_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is updated, and the version is named."""
    log = apt(tmp_path, monkeypatch, madison=MADISON.format(version="7.2um1"))
    found = debian.download(SID, tmp_path, libc=False)
    assert [path.name for path in found] == ["user-mode-linux_1_amd64.deb"]
    said = log.read_text()
    assert "update" not in said
    assert "download user-mode-linux=7.2um1\n" in said


def test_another_suite_is_asked_for_at_the_machines_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With lists in a folder of its own, which know that suite alone."""
    version = f'case "$*" in *suite/state*) {MADISON.format(version="7.2.1um1")} ;; esac'
    log = apt(tmp_path, monkeypatch, madison=version)
    assert len(debian.download(SID, tmp_path, libc=True)) == 2
    source = (tmp_path / "suite/sources/debian.sources").read_text()
    assert f"URIs: {MIRROR}\nSuites: sid\nComponents: main\n" in source
    changes = [line for line in log.read_text().splitlines() if "update" in line]
    assert len(changes) == 1
    assert f"-oDir::State={tmp_path}/suite/state" in changes[0]


def test_old_lists_are_renewed_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package of the machine's lists is gone from the mirror: fresh lists have the next."""
    download = f'case "$*" in *machine/state*) {BRINGS} ;; *) echo "E: 404" >&2; exit 100 ;; esac'
    madison = MADISON.format(version="7.2um1")
    log = apt(tmp_path, monkeypatch, madison=madison, download=download)
    assert debian.download(SID, tmp_path, libc=False)
    assert f"-oDir::State={tmp_path}/machine/state" in log.read_text()


@pytest.mark.parametrize("version", ["7.20um1", "6.12um1+b22", "17.2um1"])
def test_a_suite_that_has_another_series_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The sentence names mirror, suite and what to do instead."""
    apt(tmp_path, monkeypatch, madison=MADISON.format(version=version))
    match = rf"{MIRROR}: has no user-mode-linux 7.2 in sid; install .* --kernel PATH"
    with pytest.raises(GuestUnavailableError, match=match):
        debian.download(SID, tmp_path, libc=False)


def test_without_a_network_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """apt's first error is the cause, and the remedy follows."""
    update = 'echo "E: Could not resolve host" >&2; exit 100'
    apt(tmp_path, monkeypatch, update=update, mirrors=":")
    match = r"7.2 could not be fetched: `apt-get update`: Could not resolve host; install .* sid"
    with pytest.raises(GuestUnavailableError, match=match):
        debian.download(SID, tmp_path, libc=False)


def test_a_release_without_a_package_is_told_with_those_that_have_one(tmp_path: Path) -> None:
    """--kernel PATH takes any."""
    with pytest.raises(GuestUnavailableError, match=r"Linux 5\.10.* only of 6\.1, 6\.12, 7\.2;"):
        find_kernel(version="5.10")


def test_another_machine_than_x86_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is fetched."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kernel.platform, "machine", lambda: "aarch64")
    with pytest.raises(GuestUnavailableError, match="x86-64, and this machine is aarch64"):
        fetch_kernel(SID)


def cached(cache: Path, release: Release, version: str) -> None:
    root = cache / "fpr" / "kernels" / release.series
    modules = root / "usr/lib/uml/modules" / version
    modules.mkdir(parents=True)
    (modules / "modules.dep").write_text("kernel/drivers/virtio/virtio_balloon.ko:\n")
    (root / "usr/bin").mkdir()
    (root / "usr/bin/linux.uml").write_text("")
    (root / "usr/bin/linux.uml").chmod(0o755)


def test_each_release_has_its_place_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached kernel is taken for its own series, whichever patch level is asked for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for release in RELEASES:
        cached(tmp_path, release, f"{release.series}.99")
    for release in RELEASES:
        assert find_kernel(version=f"{release.series}.7").version == f"{release.series}.99"
    assert [each.release for each in kernels_at_hand()] == list(RELEASES)
    assert find_kernel().release is DEFAULT


def test_without_a_network_a_release_that_is_here_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not taken by itself: what a run is of would depend on the machine."""
    update = 'echo "E: Could not resolve host" >&2; exit 100'
    apt(tmp_path, monkeypatch, update=update)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached(tmp_path, DEFAULT, "6.1.99")
    match = r"Could not resolve host.*; what is here is Linux 6\.1.*`--set guest\.kernel=6\.1`"
    with pytest.raises(GuestUnavailableError, match=match):
        find_kernel(version="7.2")


def test_a_kernel_of_another_series_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies in a release's place has to be of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached(tmp_path, SID, "7.3.1")
    assert SID not in [each.release for each in kernels_at_hand()]


def test_an_executable_is_made_to_take_the_library_beside_it(tmp_path: Path) -> None:
    """Nothing but the loader's name changes in it."""
    program = tmp_path / "usr/bin/linux.uml"
    program.parent.mkdir(parents=True)
    shutil.copy2(shutil.which("true") or sys.executable, program)
    before, name = program.read_bytes(), interpreter(program)
    assert name.startswith("/")
    assert library_of(program, tmp_path) is None, "it takes the machine's"
    with pytest.raises(ValueError, match=LOADER):
        use_own_library(program, tmp_path)
    library = tmp_path / "usr/lib/x86_64-linux-gnu"
    library.mkdir(parents=True)
    (library / LOADER).touch()
    (library / "libc.so.6").touch()
    use_own_library(program, tmp_path)
    assert interpreter(program) == LOADER
    assert library_of(program, tmp_path) == library
    padded = LOADER.encode().ljust(len(name), b"\0")
    assert program.read_bytes() == before.replace(name.encode(), padded, 1)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x02", b"\x7fELF\x02" * 100])
def test_what_is_no_such_executable_names_no_loader(tmp_path: Path, content: bytes) -> None:
    """Scripts and damaged files are taken as they are, and fail when they are run."""
    path = tmp_path / "linux.uml"
    path.write_bytes(content)
    assert interpreter(path) == ""
    assert library_of(path, tmp_path) is None


def test_a_version_of_the_table_is_its_own_row() -> None:
    """As `fpr run --set guest.kernel=` writes them."""
    assert [release_of(each.series) for each in RELEASES] == list(RELEASES)

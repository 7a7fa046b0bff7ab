"""Downloads a release's kernel, and its C library, from Debian: by apt-get, without root.

Nothing of the machine's own apt is changed: lists that the machine lacks lie in the folder that
the download is made in. A suite that the machine's sources do not name is asked for at the mirror
that they name for Debian.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.releases import Release

PACKAGE = "user-mode-linux"
LIBC = "libc6"
BY_PATH = "or give a kernel by --kernel PATH, and its modules by --modules DIR"
TIMEOUT_S = 300
MIRROR = "http://deb.debian.org/debian"
"""Debian's own name for all of its mirrors, where the machine's sources have none of Debian's."""
_KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
_ONLY_PACKAGES = ("-oAcquire::Languages=none", "-oAPT::Update::Error-Mode=any")


def download(release: Release, folder: Path, *, libc: bool) -> list[Path]:
    """The packages, in an empty folder: of the suite's newest point release of the series.

    `libc`: its C library as well. Raises `GuestUnavailableError`, which says what to do.
    """
    for tool in ("apt-get", "apt-cache", "dpkg"):
        if shutil.which(tool) is None:
            raise GuestUnavailableError(
                f"a real guest needs User-mode Linux {release.series}, and without {tool} it "
                f"cannot be fetched: {remedy(release)}"
            )
    apt = _Apt(release, folder)
    options: Sequence[str] = ()
    if not apt.mirrors(options):  # the machine has no lists
        options = apt.own_state("machine")
        apt.update(options)
    if not libc and apt.versions(options):
        try:
            return apt.download(options, [PACKAGE])
        except GuestUnavailableError:  # the machine's lists are old
            options = apt.own_state("machine")
            apt.update(options)
            return apt.download(options, [PACKAGE])
    mirror = next(iter(apt.mirrors(options)), MIRROR)
    options = apt.suite_alone(mirror)
    apt.update(options)
    if not apt.versions(options):
        raise GuestUnavailableError(
            f"{mirror}: has no {PACKAGE} {release.series} in {release.suite}; {remedy(release)}"
        )
    return apt.download(options, [PACKAGE, LIBC] if libc else [PACKAGE])


def remedy(release: Release) -> str:
    """What a user can do who has no kernel of it."""
    return f"install the package {PACKAGE} of Debian's {release.suite}, {BY_PATH}"


class _Apt:
    """apt's programs, for one release and in one folder."""

    def __init__(self, release: Release, folder: Path) -> None:
        self._release = release
        self._folder = folder

    def own_state(self, name: str) -> list[str]:
        """Options under which apt keeps its lists in the folder."""
        state, cache = self._folder / name / "state", self._folder / name / "cache"
        for each in (state / "lists/partial", cache / "archives/partial"):
            each.mkdir(parents=True, exist_ok=True)
        # The folders below them as well: the machine's settings may name those by themselves.
        return [
            f"-oDir::State={state}",
            f"-oDir::State::lists={state / 'lists'}",
            f"-oDir::Cache={cache}",
            f"-oDir::Cache::archives={cache / 'archives'}",
            *_ONLY_PACKAGES,
        ]

    def suite_alone(self, mirror: str) -> list[str]:
        """Options under which apt knows the release's suite at the mirror, and nothing else."""
        options = self.own_state("suite")
        sources, preferences = self._folder / "suite/sources", self._folder / "suite/preferences"
        for each in (sources, preferences):
            each.mkdir(exist_ok=True)
        keys = [path for name in _KEYRINGS if (path := Path("/usr/share/keyrings", name)).is_file()]
        (sources / "debian.sources").write_text(
            f"Types: deb\nURIs: {mirror}\nSuites: {self._release.suite}\nComponents: main\n"
            "Architectures: amd64\n" + (f"Signed-By: {keys[0]}\n" if keys else "")
        )
        return [
            *options,
            "-oDir::Etc::sourcelist=/dev/null",
            f"-oDir::Etc::sourceparts={sources}",
            "-oDir::Etc::preferences=/dev/null",
            f"-oDir::Etc::preferencesparts={preferences}",
        ]

    def mirrors(self, options: Sequence[str]) -> list[str]:
        """Addresses of Debian's archive in the lists; none where there are no lists."""
        which = ("Origin: Debian", "Label: Debian", "Identifier: Packages")
        text = self._run(["apt-get", *options, "indextargets", *which, "--format", "$(REPO_URI)"])
        return list(dict.fromkeys(line.strip().rstrip("/") for line in text.splitlines()))

    def update(self, options: Sequence[str]) -> None:
        """Fetch the lists."""
        self._run(["apt-get", *options, "update"])

    def versions(self, options: Sequence[str]) -> list[str]:
        """Of the kernel's package, those of the series, the newest first."""
        text = self._run(["apt-cache", *options, "madison", PACKAGE])
        found = [line.split("|")[1].strip() for line in text.splitlines() if line.count("|") > 1]
        series = re.escape(self._release.series)
        return [each for each in found if re.match(rf"{series}(?!\d)", each)]

    def download(self, options: Sequence[str], packages: Sequence[str]) -> list[Path]:
        """The packages' files; the kernel's is the newest of the series."""
        versions = self.versions(options)
        wanted = [f"{each}={versions[0]}" if each == PACKAGE else each for each in packages]
        self._run(["apt-get", *options, "download", *wanted])
        files = [path for each in packages for path in self._folder.glob(f"{each}_*.deb")]
        if len(files) != len(packages):
            raise GuestUnavailableError(
                f"apt-get brought {len(files)} of {len(packages)} packages; {remedy(self._release)}"
            )
        return files

    def _run(self, command: list[str]) -> str:
        return run(command, self._folder, self._release)


def run(command: list[str], folder: Path, release: Release) -> str:
    """What it prints. Raises `GuestUnavailableError` where it fails or does not end."""
    words = " ".join(word for word in command if not word.startswith("-o"))
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise GuestUnavailableError(
            f"`{words}` did not end in {TIMEOUT_S} s; try again, {remedy(release)}"
        ) from error
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("E: ")]
        why = next(iter(errors or done.stderr.strip().splitlines()), "no word why")
        raise GuestUnavailableError(
            f"Linux {release.series} could not be fetched: `{words}`: {why.removeprefix('E: ')}; "
            f"{remedy(release)}"
        )
    return done.stdout

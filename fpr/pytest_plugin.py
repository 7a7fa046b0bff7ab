"""pytest collects `*.scenario.yaml`: each expectation of such a file is a test.

A file is run once, whatever processes its tests are spread over (pytest-xdist), and a test that
fails says `file:line: metric: got, wanted`. A file without `expect:` is no test. This process is
that of the user's tests, which may have packages of the same names as ours: it imports none of
them, and asks a process of fpr (`pytest_worker.py`), which starts with the first such file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fpr.pytest_worker import Skipped, Told, Worker

SUFFIXES = (".scenario.yaml", ".scenario.yml")
_SHARED = "fpr_folder"
_FOLDER = pytest.StashKey[Path]()
_WORKER = pytest.StashKey[Worker]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this plugin."""
    group = parser.getgroup("fpr", "scenarios of virtual machines")
    group.addoption(
        "--fpr-results",
        metavar="DIR",
        help="Keep the results of each scenario, with report.html, in a folder below DIR.",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Where the processes of one run of pytest find each other's results."""
    given = getattr(config, "workerinput", {}).get(_SHARED)
    if given is None:
        scratch = tempfile.TemporaryDirectory(prefix="fpr-pytest-")
        config.add_cleanup(scratch.cleanup)
        given = scratch.name
    config.stash[_FOLDER] = Path(given)
    config.stash[_WORKER] = Worker()
    config.add_cleanup(config.stash[_WORKER].close)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Of pytest-xdist: a process is told where."""
    node.workerinput[_SHARED] = str(node.config.stash[_FOLDER])


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """A scenario, by its name."""
    if file_path.name.endswith(SUFFIXES):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


class ScenarioFile(pytest.File):
    """A scenario with what is expected of it."""

    def collect(self) -> Iterator[ExpectationItem]:
        """An item for each expectation; every mistake of the file is told at once."""
        shown = _shown(self.path, self.config)
        try:
            found = self._worker.ask("expectations", path=str(self.path), shown=shown)
        except Told as told:
            raise self.CollectError(str(told)) from None
        seen: set[str] = set()
        for index, each in enumerate(found):
            name = each["name"]
            while name in seen:
                name += " again"
            seen.add(name)
            yield ExpectationItem.from_parent(self, name=name, index=index, line=each["line"])

    def summary(self) -> dict[str, Any]:
        """What the run found. Whichever process comes first runs it, and the others wait."""
        folder = self.config.stash[_FOLDER]
        key = hashlib.sha256(str(self.path).encode()).hexdigest()[:24]
        kept = folder / f"{key}.json"
        with (folder / f"{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if kept.exists():
                found: dict[str, Any] = json.loads(kept.read_bytes())
                return found
            results = self._results()
            done = self._worker.ask(
                "run", path=str(self.path), folder=str(results) if results else None
            )
            for sentence in done["undrawn"]:
                _warn(sentence)
            found = done["summary"]
            building = kept.with_suffix(f".{os.getpid()}")
            building.write_text(json.dumps(found))
            building.replace(kept)
            return found

    @property
    def _worker(self) -> Worker:
        return self.config.stash[_WORKER]

    def _results(self) -> Path | None:
        """Where the results are kept, if anybody wants them."""
        below = self.config.getoption("--fpr-results")
        if not below:
            return None
        name = self.path.name.removesuffix(".yaml").removesuffix(".yml").removesuffix(".scenario")
        folder = Path(below) / name
        number = 1
        while folder.exists():
            number += 1
            folder = folder.with_name(f"{name}-{number}")
        return folder


class ExpectationItem(pytest.Item):
    """One expectation."""

    def __init__(self, *, index: int, line: int, **more: Any) -> None:
        super().__init__(**more)
        self._index, self._line = index, line

    def runtest(self) -> None:
        """Look at what the run found; `Told` where it is not what was expected."""
        assert isinstance(self.parent, ScenarioFile)
        try:
            summary = self.parent.summary()
        except Skipped as skipped:
            pytest.skip(str(skipped))
        found = summary["expect"][self._index]
        told = {name: found[name] for name in ("metric", "value", "min", "max")}
        for name, each in {"seed": summary["seed"], **told}.items():
            if each is not None:
                self.user_properties.append((f"fpr.{name}", each))
        if not found["ok"]:
            place = f"{_shown(self.path, self.config)}:{self._line}"
            unknown = found["value"] is None
            got = "nothing: it is not known after this run" if unknown else f"{found['value']:,}"
            raise Told(f"{place}: {found['metric']}: got {got}, wanted {found['wanted']}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> Any:
        """What there is to tell, without a trace of this file; else a trace."""
        if isinstance(excinfo.value, Told):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        """The place in the file, lines from 0."""
        return self.path, self._line - 1, f"{self.path.name}: {self.name}"


def _warn(sentence: str) -> None:
    """Among the warnings of pytest, and no failure even where it is told to take them as errors:
    what was expected of the scenario holds or does not, whatever can be drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(pytest.PytestWarning(sentence), stacklevel=2)


def _shown(path: Path, config: pytest.Config) -> str:
    """A path as pytest shows it: from where it was called."""
    here = config.invocation_params.dir
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

"""pytest collects `*.scenario.yaml`: each expectation of such a file is a test.

A file is run once, whatever processes its tests are spread over (pytest-xdist), and a test that
fails says `file:line: metric: got, wanted`. A file without `expect:` is no test. Nothing of this
project is imported before the first such file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from emulator.scenario.model import Expectation, Scenario

SUFFIXES = (".scenario.yaml", ".scenario.yml")
_SHARED = "fpr_folder"
_FOLDER = pytest.StashKey[Path]()


class Missed(Exception):
    """An expectation does not hold; the sentence is all that there is to say."""


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

    scenario: Scenario

    def collect(self) -> Iterator[ExpectationItem]:
        """An item for each expectation; every mistake of the file is told at once."""
        from emulator.scenario.errors import ScenarioError
        from emulator.scenario.load import load
        from emulator.scenario.yaml_source import read

        shown = _shown(self.path, self.config)
        try:
            self.scenario = load(self.path)
        except ScenarioError as error:
            raise self.CollectError(str(error).replace(str(self.path), shown)) from None
        root, _ = read(self.path.read_bytes(), shown)
        seen: set[str] = set()
        for index, each in enumerate(self.scenario.expect):
            name = _name(each)
            while name in seen:
                name += " again"
            seen.add(name)
            line = root.find(("expect", index, "metric")).place.line
            yield ExpectationItem.from_parent(self, name=name, index=index, line=line)

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
            found = _run(self.scenario, self._results())
            building = kept.with_suffix(f".{os.getpid()}")
            building.write_text(json.dumps(found))
            building.replace(kept)
            return found

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
        """Look at what the run found; `Missed` where it is not what was expected."""
        assert isinstance(self.parent, ScenarioFile)
        summary = self.parent.summary()
        found = summary["expect"][self._index]
        told = {name: found[name] for name in ("metric", "value", "min", "max")}
        for name, each in {"seed": summary["seed"], **told}.items():
            if each is not None:
                self.user_properties.append((f"fpr.{name}", each))
        if not found["ok"]:
            from emulator.report.quantity import bounds

            place = f"{_shown(self.path, self.config)}:{self._line}"
            unknown = found["value"] is None
            got = "nothing: it is not known after this run" if unknown else f"{found['value']:,}"
            raise Missed(f"{place}: {found['metric']}: got {got}, wanted {bounds(found)}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *_: Any) -> Any:
        """A line where an expectation is missed; a sentence of what is lacking; else a trace."""
        if isinstance(excinfo.value, Missed) or hasattr(excinfo.value, "exit_code"):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        """The place in the file, lines from 0."""
        return self.path, self._line - 1, f"{self.path.name}: {self.name}"


def _run(scenario: Scenario, folder: Path | None) -> dict[str, Any]:
    """Run it, with its control; keep its results in `folder`, if there is any."""
    from emulator.report.keep import keep_run
    from emulator.simulation.control import run_with_control
    from emulator.simulation.summary import summarize

    started = datetime.now().astimezone()
    if scenario.guest.kind == "linux":
        run, control = _run_real(scenario), None
    else:
        run, control = run_with_control(scenario, maps_pages=folder is not None)
    summary = summarize(scenario, run, control)
    if folder is not None:
        pictures = keep_run(
            folder, scenario, summary, run, control, started=started, arguments=["pytest"]
        )
        for undrawn in pictures.draw():
            _warn(str(undrawn))
    return summary


def _warn(sentence: str) -> None:
    """Among the warnings of pytest, and no failure even where it is told to take them as errors:
    what was expected of the scenario holds or does not, whatever can be drawn."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(pytest.PytestWarning(sentence), stacklevel=2)


def _run_real(scenario: Scenario) -> Any:
    """On a real kernel; the test is skipped where there is none."""
    from emulator.analysis.real_guest import run_real
    from emulator.analysis.real_summary import real_outcome
    from guest_model.linux.errors import GuestUnavailableError
    from guest_model.linux.kernel import find_kernel

    try:
        kernel = find_kernel(version=scenario.guest.kernel)
    except GuestUnavailableError as error:
        pytest.skip(str(error))
    return real_outcome(run_real(scenario, kernel, limit_ns=scenario.expected_ns))


def _shown(path: Path, config: pytest.Config) -> str:
    """A path as pytest shows it: from where it was called."""
    here = config.invocation_params.dir
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _name(each: Expectation) -> str:
    low = "" if each.min is None else f"{each.min}<="
    high = "" if each.max is None else f"<={each.max}"
    return f"{low}{each.metric}{high}"

"""Small scenarios: read from a text, or run; in FILES a file comes and goes twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from emulator.scenario.errors import ScenarioError
from emulator.scenario.load import parse
from emulator.scenario.model import Scenario
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize

FILES = """
guest: {memory: 512MiB, vcpus: 1}
duration: 12s
phases:
  - run: [{kind: tmpfs, size: 200MiB, keep: 1s}]
  - {duration: 4s, run: [{kind: idle}]}
  - run: [{kind: tmpfs, size: 150MiB, keep: 1s}]
"""

SMALL = b"phases: [{run: [{kind: tmpfs, size: 1GiB}]}]\n"


def read(text: bytes, *sets: str) -> Scenario:
    """The scenario in a text."""
    return parse(text, "a.yaml", Path(), sets)


def mistakes(text: bytes, *sets: str) -> list[str]:
    """Every mistake of a text, as it is printed."""
    with pytest.raises(ScenarioError) as caught:
        read(text, *sets)
    return [str(mistake) for mistake in caught.value.mistakes]


def scenario_of(reporting: str, rest: str = FILES) -> Scenario:
    """The scenario with this reporting part."""
    return parse(f"reporting: {reporting}\n{rest}".encode(), "a.yaml", Path())


def run_summary(scenario: Scenario) -> dict[str, Any]:
    """summary.json of a run without its control."""
    return summarize(scenario, simulate(scenario), None)

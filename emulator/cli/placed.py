"""Mistakes in a scenario that only a run can find, told at their places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from emulator.scenario.load import mistake_at
from emulator.scenario.source import Source
from emulator.simulation.capacity import NeverTogetherError


@contextmanager
def placed(source: Source, sets: Sequence[str]) -> Iterator[None]:
    """Around runs of the scenario in a text, with these overrides."""
    try:
        yield
    except NeverTogetherError as error:
        raise mistake_at(source, sets, error.path, error.what, error.instead) from error

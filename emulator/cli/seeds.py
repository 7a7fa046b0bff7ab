"""The numbers that `--seeds` names."""

from __future__ import annotations

from emulator.scenario.errors import Mistake, Place, ScenarioError
from emulator.scenario.overrides import shown_option
from emulator.scenario.seeds import check_seeds, parse_seeds
from emulator.scenario.units import QuantityError


def place(text: str) -> Place:
    """Where a mistake in `--seeds` is."""
    return Place(f"--seeds {shown_option(text)}")


def read(text: str) -> list[int]:
    """The seeds in the option's text. Raises `ScenarioError`."""
    try:
        found = parse_seeds(text)
        wrong = check_seeds(found)
        if wrong is not None:
            raise wrong[1]
    except QuantityError as error:
        mistake = Mistake(place(text), ("seeds",), error.what, error.instead)
        raise ScenarioError([mistake]) from error
    return found

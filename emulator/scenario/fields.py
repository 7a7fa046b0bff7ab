"""What every part of a scenario shares: the strict base class and the types of its fields."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from emulator.scenario import units


class Part(BaseModel):
    """A frozen piece of a scenario: no conversions behind the user's back, no unknown keys."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
    )


def mistake(what: str, instead: str, path: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """The error of a validator: what is wrong, what to write instead, and where below the field."""
    return PydanticCustomError(
        "mistake", "{what}; {instead}", {"what": what, "instead": instead, "path": path}
    )


def not_text(what: str, instead: str, path: tuple[str | int, ...] = ()) -> PydanticCustomError:
    """The error of a validator that found something else where text belongs. It is the user's if
    that was not written as a number or a word that can be taken as it stands."""
    return PydanticCustomError(
        "not_text", "{what}; {instead}", {"what": what, "instead": instead, "path": path}
    )


def _quantity(parse: Callable[[object], int]) -> BeforeValidator:
    def validate(value: Any) -> int:
        try:
            return parse(value)
        except units.QuantityError as error:
            raise mistake(error.what, error.instead) from error

    return BeforeValidator(validate)


_size_as_text = PlainSerializer(units.format_size, return_type=str, when_used="json")
_size_schema = WithJsonSchema(
    {"type": ["string", "integer"], "pattern": units.SIZE_PATTERN, "maximum": 0}
)
Size = Annotated[int, _quantity(units.parse_size), _size_as_text, _size_schema]
"""YAML: `64KiB`, `512MiB`, `1.5GiB`; attribute: bytes."""


PagesSize = Annotated[
    int,
    Field(multiple_of=units.PAGE),
    _quantity(partial(units.parse_size, multiple=units.PAGE)),
    _size_as_text,
    _size_schema,
]
"""A size of whole pages: `62.4GiB` is rounded to one, `62500B` is a mistake."""

BlocksSize = Annotated[
    int,
    Field(multiple_of=2 * units.MIB),
    _quantity(partial(units.parse_size, multiple=2 * units.MIB)),
    _size_as_text,
    _size_schema,
]
"""A size of whole blocks of 2 MiB, likewise."""

Duration = Annotated[
    int,
    _quantity(units.parse_duration),
    PlainSerializer(units.format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {"type": ["string", "integer"], "pattern": units.DURATION_PATTERN, "maximum": 0}
    ),
]
"""YAML: `16us`, `250ms`, `2s`, `10min`; attribute: nanoseconds of virtual time."""


def absolute(value: Any, info: ValidationInfo) -> Path:
    """The path of what is there, taken from the scenario's folder; a mistake if nothing is."""
    directory = (info.context or {}).get("directory", Path())
    if not isinstance(value, str | Path) or not str(value):
        raise not_text(f"{units.shown(value)} is no path", "write a path")
    path = Path(os.path.abspath(os.path.join(directory, value)))
    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        what = f"{units.shown(str(path))} cannot be used: {reason}"
        instead = "write a path that begins at the scenario's folder"
        raise mistake(what, instead) from error
    return path


File = Annotated[
    Path,
    BeforeValidator(absolute),
    PlainSerializer(str, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
"""YAML: a path relative to the scenario's folder; attribute: the absolute path, which exists."""


def written(default: Any) -> Any:
    """A default in the form that a user would write; it is validated like one."""
    return default

"""From what pydantic says about plain data to mistakes at their places, with what to write."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from emulator.scenario.errors import Mistake, Path, Place, did_you_mean
from emulator.scenario.units import format_duration, format_size, shown
from emulator.scenario.yaml_source import MAX_DIGITS, Node, is_endless

_BOOL_WORDS = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "no": "false",
    "off": "false",
    "n": "false",
}


@dataclass(frozen=True, slots=True)
class _Spot:
    """What an error is about: the deepest node there is, the path as written, and its field."""

    node: Node
    key_place: Place  # of the last key of the path, or of the node
    path: Path
    field: FieldInfo | None
    model: type[BaseModel] | None  # whose fields the last step is one of


def mistakes_of(error: ValidationError, root: Node, model: type[BaseModel]) -> Iterator[Mistake]:
    """Each of pydantic's errors as a mistake, in its order."""
    for details in error.errors(include_url=False):
        kind, context, value = details["type"], details.get("ctx", {}), details["input"]
        if kind == "too_short" and len(value) >= context["min_length"]:
            continue  # the entries are there, and each has a mistake of its own
        below = ("kind",) if kind == "union_tag_invalid" else context.get("path", ())
        spot = _find(root, (*details["loc"], *below), model)
        what, instead = _explain(details, spot)
        place = spot.key_place if kind == "extra_forbidden" else spot.node.place
        yield Mistake(place, spot.path, what, instead)


def texts_wanted(error: ValidationError, root: Node, model: type[BaseModel]) -> list[Path]:
    """Where a number or a truth value stands in the place of text: as it was written, it is one."""
    found: dict[Path, None] = {}
    for details in error.errors(include_url=False):
        spot = _find(root, (*details["loc"], *details.get("ctx", {}).get("path", ())), model)
        node = root.find(spot.path)
        if node.text is not None and node.value is not None and _wants_text(details["type"], spot):
            found[spot.path] = None
    return list(found)


def _wants_text(kind: str, spot: _Spot) -> bool:
    choices = get_args(spot.field.annotation) if spot.field and kind == "literal_error" else ()
    return kind in ("string_type", "not_text") or (
        bool(choices) and all(isinstance(choice, str) for choice in choices)
    )


def _find(root: Node, location: Path, model: type[BaseModel]) -> _Spot:
    """Follow pydantic's location through what was written and through the model, side by side.

    The location also holds the `kind` that selected a member of a union; it is not in the path.
    """
    node, path, place = root, list[str | int](), root.place
    annotation: Any = model
    field: FieldInfo | None = None
    owner: type[BaseModel] | None = model
    for step in location:
        models = _models(annotation)
        if isinstance(step, str) and _selects(step, models):
            annotation = next((m for m in models if _kind(m) == step), annotation)
            continue
        path.append(step)
        owner = models[0] if len(models) == 1 else None
        if isinstance(step, str):
            field = _fields(owner).get(step) if owner else None
            annotation = field.annotation if field else None
            if isinstance(node.value, dict) and step in node.value:
                place, node = node.key_places[step], node.value[step]
        elif isinstance(node.value, list) and step < len(node.value):
            node = node.value[step]
            place = node.place
    return _Spot(node, place, tuple(path), field, owner)


def _selects(step: str, models: list[type[BaseModel]]) -> bool:
    """Whether a step is no key but the kind that was chosen of several models."""
    return len(models) > 1 and any(_kind(model) == step for model in models)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a value of this type can be, itself or as the items of a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) is Annotated:
        return _models(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return [model for part in get_args(annotation) for model in _models(part)]
    return []


def _kind(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field else None


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _example(spot: _Spot) -> str:
    """`key: value`, as the field's first example shows it."""
    if spot.field is None or not spot.field.examples:
        return "what `fpr schema` says"
    last = next((step for step in reversed(spot.path) if isinstance(step, str)), "")
    value = yaml.safe_dump(spot.field.examples[0], default_flow_style=True, width=1000)
    return f"`{last}: {value.removesuffix('...' + chr(10)).strip()}`"


def _explain(details: ErrorDetails, spot: _Spot) -> tuple[str, str]:
    """What is wrong, and what to write instead."""
    value, context = details["input"], details.get("ctx", {})
    match details["type"]:
        case "mistake" | "not_text":
            found = context["what"], context["instead"]
        case "missing":
            found = "is missing", f"write for example {_example(spot)}"
        case "extra_forbidden":
            found = f"unknown key {shown(spot.path[-1])}", _known_key(spot)
        case "union_tag_not_found":
            found = "its `kind` is missing", f"write `kind:` and one of: {_kinds(spot)}"
        case "union_tag_invalid":
            tags = _tags(context).split(", ")
            found = f"unknown kind {shown(context['tag'])}", did_you_mean(context["tag"], tags)
        case "literal_error":
            found = _literal(value, spot)
        case kind if kind in _LENGTHS or kind in _BOUNDS:
            found = _bound(kind, spot, context)
        case kind if kind in _TYPES:
            found = _type(kind, value, spot)
        case _:
            found = details["msg"], f"write for example {_example(spot)}"
    return found


def _known_key(spot: _Spot) -> str:
    """What to write instead of an unknown key: where it belongs, or a key that there is."""
    fields = _fields(spot.model) if spot.model else {}
    for name, field in fields.items():
        if any(spot.path[-1] in _fields(model) for model in _models(field.annotation)):
            return f"write it in `{name}`"
    return did_you_mean(spot.path[-1], fields)


def _kinds(spot: _Spot) -> str:
    models = _models(spot.field.annotation) if spot.field else []
    return ", ".join(tag for tag in map(_kind, models) if tag)


def _tags(context: dict[str, Any]) -> str:
    return str(context.get("expected_tags", "")).replace("'", "")


def _literal(value: Any, spot: _Spot) -> tuple[str, str]:
    choices = get_args(spot.field.annotation) if spot.field else ()
    what = f"{shown(value)} is not possible here"
    if all(isinstance(choice, str) for choice in choices):
        return what, did_you_mean(value, choices)
    return what, f"write {_either(list(map(str, choices)))}"


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


_BOUNDS = {
    "greater_than": ("too small", "gt", "more than {}"),
    "greater_than_equal": ("too small", "ge", "{} or more"),
    "less_than": ("too large", "lt", "less than {}"),
    "less_than_equal": ("too large", "le", "{} or less"),
    "multiple_of": ("not a multiple", "multiple_of", "a multiple of {}"),
}
_LENGTHS = {
    "string_too_short": ("empty", "min_length", "at least {} character"),
    "string_too_long": ("too long", "max_length", "at most {} characters"),
    "too_short": ("too few entries", "min_length", "at least {} entry"),
    "too_long": ("too many entries", "max_length", "at most {} entries"),
}


def _bound(kind: str, spot: _Spot, context: dict[str, Any]) -> tuple[str, str]:
    if kind in _LENGTHS:
        what, key, instead = _LENGTHS[kind]
        return what, f"write {instead.format(context[key])}"
    what, key, instead = _BOUNDS[kind]
    value = spot.node.plain()  # pydantic has it in bytes or nanoseconds
    limit = _in_the_unit_of(spot, context[key])
    return f"{shown(value)} is {what}", f"write {instead.format(limit)}"


def _in_the_unit_of(spot: _Spot, limit: Any) -> str:
    """The limit of a field as its user writes values: a size, a duration, or a number."""
    fields = spot.model.model_fields if spot.model else {}
    unit = next((name.rpartition("_")[2] for name, f in fields.items() if f is spot.field), "")
    return {"bytes": format_size, "ns": format_duration}.get(unit, str)(limit)


_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
}


def _type(kind: str, value: Any, spot: _Spot) -> tuple[str, str]:
    what = f"{_found(value)} where {_TYPES[kind]} belongs"
    if kind == "bool_type" and isinstance(value, str) and value.lower() in _BOOL_WORDS:
        return what, f"write {_BOOL_WORDS[value.lower()]}"
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        return what, f"write {int(value)}"
    if kind in ("int_type", "float_type") and isinstance(value, str) and is_endless(value):
        return "this number is too large", f"write at most {MAX_DIGITS} digits"
    if not spot.path:
        return what, "write `phases:` and what else there is, each as `key: value`"
    return what, f"write for example {_example(spot)}"


def _found(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return shown(value)

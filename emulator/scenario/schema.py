"""The JSON Schemas of scenario files and of comparisons, for editors."""

from __future__ import annotations

import json
from typing import Any

from emulator.scenario.comparison import Comparison
from emulator.scenario.model import Scenario
from emulator.scenario.units import DURATION_PATTERN, SIZE_PATTERN

_QUANTITIES = {SIZE_PATTERN: "Size", DURATION_PATTERN: "Duration"}
FILE = "x-file"
"""A part with this key stands for the schema in another file: pydantic knows none of those."""
TEXT = ["string", "number", "boolean"]
"""What may stand in the place of text, which takes it as it was written."""
_KEPT = ("description", "default", "examples")


def json_schema() -> dict[str, Any]:
    """The schema as plain data; what it accepts, `load` can still refuse for how parts combine."""
    schema: dict[str, Any] = _tidy(Scenario.model_json_schema())
    schema["$defs"] |= {
        "Size": _quantity(SIZE_PATTERN, "A number and a unit: B, KiB, MiB, GiB or TiB."),
        "Duration": _quantity(DURATION_PATTERN, "A number and a unit: ns, us, ms, s, min or h."),
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fpr scenario"}
    return head | schema


def comparison_schema() -> dict[str, Any]:
    """The schema of a comparison, beside which that of scenarios lies."""
    schema: dict[str, Any] = _tidy(Comparison.model_json_schema())
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "fpr comparison"}
    return head | schema


def json_schema_text(kind: str = "scenario") -> str:
    """The schema of a `scenario` or a `comparison`, as it is printed and kept in configs/."""
    schema = comparison_schema() if kind == "comparison" else json_schema()
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def paths() -> list[str]:
    """Keys of a scenario that hold one value, as `--set` names them: guest.memory and so on."""
    schema = json_schema()
    found = []
    for name, part in schema["properties"].items():
        reference = part.get("$ref", "").rsplit("/", 1)[-1]
        below = schema["$defs"].get(reference, {}).get("properties")
        if below:
            found += [f"{name}.{each}" for each in below]
        elif part.get("type") != "array":
            found.append(name)
    return [*found, "host.backing.kind", "host.backing.thp"]


def _quantity(pattern: str, description: str) -> dict[str, Any]:
    return {
        "description": description,
        "anyOf": [{"type": "string", "pattern": pattern}, {"const": 0}],
    }


def _tidy(part: Any, inside_properties: bool = False) -> Any:
    """Without pydantic's titles, and with quantities by reference instead of by their integers."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    if FILE in part:
        return {"$ref": part[FILE]}
    kept = {key: part[key] for key in _KEPT if key in part}
    if not inside_properties and "auto" in part.get("examples", []):
        return kept | {"anyOf": [{"const": "auto"}, {"$ref": "#/$defs/Size"}]}
    if not inside_properties and part.get("pattern") in _QUANTITIES:
        return kept | {"$ref": f"#/$defs/{_QUANTITIES[part['pattern']]}"}
    if not inside_properties and part.get("type") == "string" and not {"const", "enum"} & set(part):
        part = {**part, "type": TEXT}
    return {
        key: _tidy(value, inside_properties=key in ("properties", "$defs"))
        for key, value in part.items()
        if inside_properties or key != "title"
    }

"""docs/reference: every command, and every key of a scenario, as the code has them.

`python -m tests.conformance.reference_pages` writes them (`make pages`); a test holds them against
the code. Sphinx makes the man pages fpr(1) and fpr-scenario(5) of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from emulator.cli.main import COMMANDS, Exit, cli
from emulator.scenario.schema import TEXT, json_schema

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
_EXITS = {
    Exit.OK: "all went well",
    Exit.FAILED: "an expectation failed, a gate is closed, or a comparison is out of tolerance",
    Exit.INVALID: "a mistake in the command or its input, named with its place",
    Exit.LACKING: "this machine lacks something; the message says what to install",
    Exit.DEFECT: "a defect of fpr",
    Exit.HUNG_UP: "the terminal was closed; what was found until then is kept",
    Exit.INTERRUPTED: "Ctrl-C; what was found until then is kept",
    Exit.PIPE_CLOSED: "the reader of standard output went away",
    Exit.TERMINATED: "SIGTERM; what was found until then is kept",
}
_PARTS = [
    "Guest",
    "Reporting",
    "Host",
    "SimulatedBacking",
    "AnonymousBacking",
    "MemfdBacking",
    "ShmemThpBacking",
    "HugetlbBacking",
    "Phase",
    "Idle",
    "PageFault",
    "Memhog",
    "Churn",
    "Tmpfs",
    "Forks",
    "Build",
    "Functions",
    "Log",
    "Delete",
    "DropCaches",
    "Balloon",
    "Recording",
    "VmGroup",
    "Arrival",
    "Capacity",
    "Expectation",
]
_HEAD = """# fpr-scenario

A scenario is a YAML file: a VM, how it reports free memory, what holds its memory, and what it
does. Only `phases` is required. A mistake is named with its line and column by `fpr validate`.

A size is a number and a unit (B, KiB, MiB, GiB, TiB), a duration as well (ns, us, ms, s, min, h);
`0` needs none. Paths begin at the scenario's folder.

## The scenario
"""
_WORDS = {"integer": "whole number", "boolean": "`true` or `false`", "string": "text"}


def pages() -> dict[str, str]:
    """File names and texts."""
    return {"cli.md": _cli(), "scenario.md": _scenario()}


def _cli() -> str:
    lines = ["# fpr", "", "A laboratory for virtio-balloon free page reporting.", ""]
    lines += ["Results go to standard output, everything else to standard error.", ""]
    lines += ["## Options of every command", ""]
    context = click.Context(cli, info_name="fpr")
    lines += _options(cli, context)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        lines += _command(command, click.Context(command, info_name=name, parent=context), 2)
    lines += ["## Exit codes", ""]
    lines += [f"`{code.value}`\n: {text}\n" for code, text in _EXITS.items()]
    lines += ["## See also", "", "fpr-scenario(5): how a scenario is written.", ""]
    return "\n".join(lines)


def _command(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    yield f"{'#' * level} {context.command_path}"
    yield ""
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"`{context.command_path} {usage}`"
    yield ""
    for paragraph in (command.help or "").split("\n\n"):
        yield " ".join(paragraph.split()).replace("<", "\\<")
        yield ""
    yield from _options(command, context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _command(below, click.Context(below, info_name=name, parent=context), 3)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        if command is not cli and {"--verbose", "--quiet"}.intersection(parameter.opts):
            continue  # of every command, told once
        record = parameter.get_help_record(context)
        if record is not None and record[1]:
            yield f"`{record[0]}`\n: {' '.join(record[1].split())}\n"


def _scenario() -> str:
    schema = json_schema()
    lines = [_HEAD, *_keys(schema)]
    for name in _PARTS:
        part = schema["$defs"][name]
        title = _kind(part) or name
        lines += [f"({_anchor(name)})=", f"## {title}", "", _text(part), "", *_keys(part)]
    missing = set(schema["$defs"]) - set(_PARTS) - {"Size", "Duration"}
    assert not missing, f"write {missing} into _PARTS"
    return "\n".join(lines)


def _kind(part: dict[str, Any]) -> str:
    kind = part["properties"].get("kind", {}).get("const")
    return f"kind: {kind}" if kind else ""


def _anchor(name: str) -> str:
    return f"scenario-{name.lower()}"


def _text(part: dict[str, Any]) -> str:
    return " ".join(str(part.get("description", "")).split())


def _keys(part: dict[str, Any]) -> Iterator[str]:
    required = part.get("required", [])
    for name, key in part["properties"].items():
        if name == "kind" and "const" in key:
            continue
        facts = [_type(key)]
        if name in required:
            facts.append("required")
        elif key.get("default") not in (None, ""):
            facts.append(f"default `{_value(key['default'])}`")
        if "minimum" in key or "maximum" in key:
            facts.append(f"{key.get('minimum', '')} to {key.get('maximum', '')}".strip())
        example = f" For example `{_value(key['examples'][0])}`." if key.get("examples") else ""
        yield f"`{name}` ({', '.join(filter(None, facts))})\n: {_text(key)}{example}\n"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _type(key: dict[str, Any]) -> str:
    """In words: what may stand there."""
    if "enum" in key or "const" in key:
        return " or ".join(f"`{each}`" for each in key.get("enum", [key.get("const")]))
    if "$ref" in key:
        name = key["$ref"].rsplit("/", 1)[1]
        return name.lower() if name in ("Size", "Duration") else f"[{name}](#{_anchor(name)})"
    choices = key.get("anyOf", key.get("oneOf"))
    if choices is not None:
        found = [_type(each) for each in choices if each.get("type") != "null"]
        return " or ".join(dict.fromkeys(found))
    if key.get("type") == "array" and "items" in key:
        return f"list of {_type(key['items'])}"
    kinds = key.get("type", [])
    several = [kinds] if isinstance(kinds, str) else kinds
    if several == TEXT:
        return _WORDS["string"]
    return " or ".join(_WORDS.get(kind, kind) for kind in several)


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

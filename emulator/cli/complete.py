"""What shells are offered while somebody types; each function is click's `shell_complete`."""

from __future__ import annotations

from click import Context, Parameter
from click.shell_completion import CompletionItem


def file(_context: Context, _parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Files, by the shell."""
    return [CompletionItem(incomplete, type="file")]


def policy(_context: Context, _parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of reporting policies."""
    from guest_model.reporting.registry import names

    return [CompletionItem(name) for name in names() if name.startswith(incomplete)]


def key(_context: Context, _parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """Keys of a scenario that `--set` can replace, up to the equals sign; policies behind it."""
    from emulator.scenario.schema import paths
    from guest_model.reporting.registry import names

    start = "reporting.policy="
    if incomplete.startswith(start):
        found = [f"{start}{name}" for name in names()]
    else:
        found = [f"{path}=" for path in paths()]
    return [CompletionItem(each) for each in found if each.startswith(incomplete)]

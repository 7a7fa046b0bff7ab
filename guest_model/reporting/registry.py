"""Policies by name: those of this project, those that installed packages bring, and any class.

A package brings a policy by an entry point of the group `fpr.policies`; a class that no package
brings is named by its path, `package.module:Class`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import structlog

from guest_model.reporting.failures import place_of
from guest_model.reporting.policy import (
    Described,
    HostPolicy,
    Option,
    OptionValue,
    ReportingPolicy,
    Runs,
)

__all__ = ["BUILT_IN", "GROUP", "PolicyError", "UnknownPolicyError", "find", "names"]

GROUP = "fpr.policies"
BUILT_IN = {
    "mainline": "guest_model.reporting.mainline:MainlinePolicy",
    "boundary": "guest_model.reporting.boundary:BoundaryPolicy",
    "bitmap": "guest_model.reporting.bitmap:BitmapPolicy",
    "hinting": "guest_model.reporting.hinting:HintingPolicy",
    "balloon": "guest_model.reporting.balloon:BalloonPolicy",
    "oracle": "guest_model.reporting.oracle:Oracle",
    "none": "guest_model.reporting.none:NoReporting",
}
"""These names are this project's: an entry point of the same name is not looked at."""

_METHODS: dict[Runs, tuple[type[Any], tuple[str, ...]]] = {
    Runs.WORKER: (ReportingPolicy, ("register", "unregister", "take_notice", "run_pass")),
    Runs.HOST: (HostPolicy, ("wake",)),
    Runs.AT_FREE: (Described, ()),
    Runs.NEVER: (Described, ()),
}
_ATTRIBUTES = (
    "description",
    "runs",
    "default_delay_ns",
    "default_capacity",
    "default_order",
    "options",
    "features",
    "refuse",
)


def _is_count(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _are_options(options: Any) -> bool:
    return isinstance(options, Mapping) and all(
        isinstance(name, str)
        and isinstance(option, Option)
        and isinstance(option.default, OptionValue)
        for name, option in options.items()
    )


_HOLD: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "description": ("a text", lambda value: isinstance(value, str)),
    "runs": ("a Runs", lambda value: isinstance(value, Runs)),
    "default_delay_ns": ("an int of ns", lambda value: _is_count(value, 0, 1 << 62)),
    "default_capacity": ("an int of blocks, 1 or more", lambda value: _is_count(value, 1, 1 << 15)),
    "default_order": (
        "an order from 0 to 10, or None",
        lambda value: value is None or _is_count(value, 0, 10),
    ),
    "options": ("a mapping of names to Option", _are_options),
    "features": ("an int of feature bits", lambda value: isinstance(value, int)),
}
"""What a class attribute has to be, in words and as a check."""


class PolicyError(Exception):
    """A policy cannot be used: `what` is wrong, and what to do `instead`."""

    def __init__(self, what: str, instead: str) -> None:
        super().__init__(f"{what}; {instead}")
        self.what = what
        self.instead = instead


class UnknownPolicyError(PolicyError):
    """No policy has this name; `known` are those that there are."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"no policy is called '{name}'", f"write one of: {', '.join(known)}")
        self.known = known


def names() -> list[str]:
    """Every name that `find` knows, sorted; classes are not imported."""
    return sorted({*BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def find(name: str) -> type[Any]:
    """The class of a policy by its name, or by its path `package.module:Class`.

    It has every class attribute of `Described` and all methods of its kind (`Runs`). Raises
    `UnknownPolicyError`, or `PolicyError` where what is there is no policy, or cannot be imported.
    """
    if name in BUILT_IN:
        return _load(EntryPoint(name, BUILT_IN[name], GROUP), f"policy '{name}'")
    for point in entry_points(group=GROUP):
        if point.name == name:
            package = f" of package {point.dist.name}" if point.dist else ""
            return _load(point, f"policy '{name}'{package}")
    if ":" in name:
        return _load(EntryPoint(name, name, GROUP), f"policy '{name}'")
    raise UnknownPolicyError(name, names())


def _load(point: EntryPoint, who: str) -> type[Any]:
    module, _, path = point.value.partition(":")
    if not _is_dotted(module) or not _is_dotted(path):
        raise PolicyError(f"{who} is no path of a class", "write package.module:Class")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # whatever a foreign module does
        cause = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        place = place_of(error)
        cause = f"{place}: {cause}" if place else cause
        structlog.get_logger().debug("a policy cannot be imported", policy=who, exc_info=error)
        what = f"{who} cannot be imported from {module}: {cause}"
        raise PolicyError(what, "install or repair that package") from error
    for step in path.split("."):
        if not hasattr(found, step):
            raise PolicyError(f"{who}: module {module} has no {path}", "write package.module:Class")
        found = getattr(found, step)
    return _checked(found, who)


def _is_dotted(path: str) -> bool:
    return all(step.isidentifier() for step in path.split("."))


def _checked(found: Any, who: str) -> type[Any]:
    """The class, with defaults for what it does not say; PolicyError where it is no policy."""
    if not isinstance(found, type):
        raise PolicyError(f"{who} is no class", "name a class, see docs/policies.md")
    policy: Any = found
    for name in _ATTRIBUTES:
        if not hasattr(policy, name):
            setattr(policy, name, inspect.getattr_static(Described, name))
    for name, (what, holds) in _HOLD.items():
        if not holds(getattr(policy, name)):
            raise PolicyError(f"{who}: `{name}` is not {what}", "see docs/policies.md")
    protocol, methods = _METHODS[policy.runs]
    for method in methods:
        mine = getattr(policy, method, None)
        if not callable(mine) or mine is getattr(protocol, method, None):
            what = f"{who}: class {policy.__qualname__} has no method `{method}`"
            raise PolicyError(what, "define it, see docs/policies.md")
    return found

"""Calls into a policy: its exceptions are its author's, with their line, and its rules are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from emulator.native import NativeError
from emulator.simulation.shortage import shortage
from guest_model.reporting.failures import is_own, place_of, policy_failed

T = TypeVar("T")


class BrokenRuleError(Exception):
    """A policy breaks a rule that every policy has to keep; the sentence names both."""

    exit_code = 2


class PolicyCalls:
    """Of one policy in one run. A policy of this project is called as it is: what it raises, and a
    rule that it breaks, is a defect."""

    def __init__(self, name: str, policy: type[Any]) -> None:
        self._name = name
        self._own = is_own(policy)
        self.failed = False
        """It raised an exception or broke a rule: nothing of it is called any more."""

    def call(self, now_ns: int, asked: str, hook: Callable[..., T], *arguments: object) -> T:
        """What `hook` returns. Raises `PolicyFailedError` with the line of the user's that failed,
        or `BrokenRuleError` where the lists refuse what it does; `asked`: what it was to do."""
        try:
            return hook(*arguments)
        except StopIteration:
            raise
        except Exception as error:
            if shortage(error) is not None or hasattr(error, "exit_code"):
                raise
            if isinstance(error, NativeError):
                place = place_of(error)
                where = f" ({place})" if place else ""
                did = f"asks the lists for what cannot be: {error}{where}"
                raise self.broken(
                    now_ns, did, "blocks come from list_take, and go back once"
                ) from error
            self.failed = True
            told = None
            if not self._own:
                text = f"reporting.policy {self._name}, at {now_ns / 1e9:.6f} s, {asked}"
                told = policy_failed(error, hook, text)
            if told is None:
                raise
            raise told from error

    def broken(self, now_ns: int, did: str, rule: str) -> Exception:
        """What to raise where a policy breaks a rule: what it did, when, and the rule."""
        self.failed = True
        text = f"reporting.policy {self._name}: at {now_ns / 1e9:.6f} s it {did}"
        if self._own:
            return AssertionError(text)
        return BrokenRuleError(f"{text}; the rule: {rule} (docs/policies.md has all of them)")

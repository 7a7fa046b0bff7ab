"""Logs on standard error: plain lines, in colour on a terminal; JSON lines with FPR_LOG=json."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click
import structlog

VARIABLE = "FPR_LOG"
_FORMS = ("", "text", "json")
_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
_DEFAULT = _LEVELS.index(logging.INFO)


def configure(louder: int) -> None:
    """Set up logging, `louder` levels above the default (negative: quieter).

    Raises `click.UsageError` where FPR_LOG asks for a form that there is not.
    """
    level = _LEVELS[max(0, min(_DEFAULT + louder, len(_LEVELS) - 1))]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            *_renderers(os.environ.get(VARIABLE, "")),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )


def _renderers(form: str) -> list[structlog.typing.Processor]:
    if form not in _FORMS:
        raise click.UsageError(f"{VARIABLE}={form}: there is no such form; write json or text")
    if form == "json":
        return [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(),
        ]
    clock = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
    if sys.stderr.isatty():
        return [clock, structlog.dev.ConsoleRenderer()]
    return [clock, structlog.processors.format_exc_info, _plain]


def _plain(_logger: Any, _method: str, event: structlog.typing.EventDict) -> str:
    """`12:30:59 info running scenario=quickstart seed=1`, and the lines of an exception."""
    head = [str(event.pop(key, "")) for key in ("timestamp", "level", "event")]
    exception = event.pop("exception", "")
    facts = [_fact(key, value) for key, value in event.items() if value is not None]
    line = " ".join([*head, *facts])
    return f"{line}\n{exception}" if exception else line


def _fact(key: str, value: object) -> str:
    if key.endswith("_ns") and isinstance(value, int):
        return f"{key.removesuffix('_ns')}={value / 1e9:.2f}s"
    return f"{key}={_word(value)}"


def _word(value: object) -> str:
    """A value, in quotes where it would end elsewhere than it looks."""
    text = str(value)
    return text if text and text.isprintable() and not {" ", '"', "="} & set(text) else repr(text)

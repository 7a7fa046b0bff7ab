"""Logs on standard error: for people on a terminal, JSON lines otherwise."""

from __future__ import annotations

import logging
import sys

import structlog

_LEVELS = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
_DEFAULT = _LEVELS.index(logging.INFO)


def configure(louder: int) -> None:
    """Set up logging, `louder` levels above the default (negative: quieter)."""
    level = _LEVELS[max(0, min(_DEFAULT + louder, len(_LEVELS) - 1))]
    terminal = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
    ]
    if terminal:
        shared.append(structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False))
        shared.append(structlog.dev.ConsoleRenderer())
    else:
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=True))
        shared.append(structlog.processors.dict_tracebacks)
        shared.append(structlog.processors.JSONRenderer())
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )

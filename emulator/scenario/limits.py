"""Bounds of what a workload may ask for: guards against mistyped units and endless runs."""

from __future__ import annotations

from emulator.scenario.units import HOUR, TIB

MAX_PROCESSES = 1024
"""As many as vCPUs: each process needs one to run on."""
MAX_REPEAT = 10**9
MAX_DURATION_NS = 24 * HOUR
"""A day of virtual time."""
MAX_FILE_BYTES = 16 * TIB
MAX_FILES = 1_000_000
"""Of a workload: this program remembers each of them."""

"""Speed of whole simulated guests, and of their creation."""

from __future__ import annotations

import time
from pathlib import Path

from emulator.scenario.load import parse
from emulator.scenario.model import Scenario
from emulator.simulation.control import run_with_control
from emulator.simulation.machine import Machine
from emulator.simulation.simulate import simulate

PAGE_FAULT = """
guest: {{memory: 64GiB, vcpus: 16}}
phases:
  - duration: {duration}
    run: [{{kind: page_fault, processes: 16, thp: {thp}}}]
"""
IDLE = "guest: {memory: 1TiB, vcpus: 16}\nphases: [{run: [{kind: idle}], duration: 30s}]\n"


def _scenario(text: str) -> Scenario:
    return parse(text.encode(), "benchmark.yaml", Path())


def _create_s() -> float:
    scenario = _scenario(IDLE)
    start = time.perf_counter()
    with Machine(scenario, tasks=1, owners=1):
        return time.perf_counter() - start


def _step_ns() -> float:
    """Allocate, fault in, free: one step of 16 vCPUs that take turns."""
    scenario = _scenario(PAGE_FAULT.format(thp="false", duration="1s"))
    start = time.perf_counter()
    outcome = simulate(scenario, reporting=False)
    steps = outcome.allocator["allocs"] + outcome.allocator["frees"]
    return (time.perf_counter() - start) * 1e9 / steps


def _wall_s(text: str) -> float:
    start = time.perf_counter()
    run_with_control(_scenario(text))
    return time.perf_counter() - start


def run() -> list[tuple[str, float, str]]:
    """(what, figure, unit) of each."""
    page_fault = "64 GiB, 16 vCPUs, page_fault for 10 s and its control, THP"
    return [
        ("guest of 1 TiB, booted and idle: creation", _create_s(), "s"),
        ("one operation of 16 vCPUs that take turns", _step_ns(), "ns"),
        (f"{page_fault} off", _wall_s(PAGE_FAULT.format(thp="false", duration="10s")), "s"),
        (f"{page_fault} on", _wall_s(PAGE_FAULT.format(thp="true", duration="10s")), "s"),
        ("1 TiB idle for 30 s and its control", _wall_s(IDLE), "s"),
    ]

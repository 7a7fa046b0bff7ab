"""The plan that a guest's agent executes: phases, and the operations of each task.

`plan` is text, a line a fact: `module PATH`, `order N` (the reporting order, -1: leave it),
`duration NS` (of the run, 0: as long as it takes), `phase NS` (0: until its tasks end), and, for
the phase before it, `task WORKLOAD NS PATH`. PATH is a stream: STREAM_HEAD, then OP_DTYPE rows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guest_model.workload.op import OpKind, Ops, chunk
from guest_model.workload.page_fault import PageFault
from guest_model.workload.task import Task
from guest_model.workload.timeline import notes_of

STREAM_MAGIC = 0x6670725F6F707331
STREAM_HEAD = struct.Struct("=QQQQ")
"""Magic, operations to execute once, operations to repeat after them, how often: 0 is for ever."""
MAX_OPERATIONS = 1_000_000
"""Of one stream, 24 bytes each, that lie in the guest's memory."""
MAX_TASKS = 1024
MAX_TIMED = 131_072
"""Instants of a task that the agent notes."""


class PlanError(Exception):
    """A workload that an agent cannot execute; the sentence says what to write instead."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One process; `workload` is its index in the phase, `duration_ns` its end, 0: its own."""

    task: Task
    workload: int
    duration_ns: int = 0


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """Tasks that start together; `duration_ns` is 0 where the phase ends with the last of them."""

    tasks: Sequence[PlannedTask]
    duration_ns: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a guest is to do. `reporting_order` None: what the kernel chooses."""

    phases: Sequence[PlannedPhase]
    reporting_order: int | None
    duration_ns: int = 0

    def write(self, folder: Path, modules: Sequence[str]) -> None:
        """Write the plan and its streams into a folder that the guest sees as /plan."""
        order = -1 if self.reporting_order is None else self.reporting_order
        lines = [f"module {module}" for module in modules]
        lines += [f"order {order}", f"duration {self.duration_ns}"]
        number = 0
        for phase in self.phases:
            lines.append(f"phase {phase.duration_ns}")
            for each in phase.tasks:
                (folder / f"{number}.ops").write_bytes(stream(each.task))
                lines.append(f"task {each.workload} {each.duration_ns} /plan/{number}.ops")
                number += 1
        if number > MAX_TASKS:
            raise PlanError(f"{number} processes; a real guest takes {MAX_TASKS}: write fewer")
        (folder / "plan").write_text("\n".join(lines) + "\n")


def stream(task: Task) -> bytes:
    """The operations of a task, drawn as the model draws them; owners count from 0."""
    once, loop, loops = _operations(task)
    head = STREAM_HEAD.pack(STREAM_MAGIC, len(once), len(loop), loops)
    return head + once.tobytes() + loop.tobytes()


def performed(task: Task, noted: int) -> Ops:
    """The operations that an agent began of a task, its loop unrolled, by what it noted."""
    once, loop, _ = _operations(task)
    rounds = -(-max(0, noted - int(notes_of(once).sum())) // max(1, int(notes_of(loop).sum())))
    every = np.concatenate((once, np.tile(loop, rounds)))
    begun = int(np.searchsorted(np.cumsum(notes_of(every)) - notes_of(every), noted))
    return every[:begun]


def _operations(task: Task) -> tuple[Ops, Ops, int]:
    chunks = task.chunks(0, 0)
    if isinstance(task, PageFault):
        once = next(chunks) if task.variant == 2 else chunk([])
        rounds = next(chunks)
        length = int(np.flatnonzero(rounds["kind"] == OpKind.FREE)[0]) + 1
        return once, rounds[:length], task.iterations or 0
    parts: list[Ops] = []
    total = 0
    for part in chunks:
        parts.append(part.copy())
        total += len(part)
        if total > MAX_OPERATIONS:
            if not hasattr(task, "operations") or task.operations is not None:
                raise PlanError(
                    f"a task has more than {MAX_OPERATIONS} operations; give a real guest less"
                )
            break
    every = np.concatenate(parts)
    return every, every[:0], 0

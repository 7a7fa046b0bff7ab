"""A phase of a scenario: workloads that run at once."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from emulator.scenario.fields import Duration, Part, mistake
from emulator.scenario.limits import MAX_DURATION_NS
from emulator.scenario.workloads import Workload

MAX_PHASES = 1000
MAX_PARALLEL = 256


class Phase(Part):
    """A part of the run. All its workloads start together; the next phase starts when it ends."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["run"]}, {"required": ["duration"]}]}
    )

    name: str | None = Field(default=None, min_length=1, max_length=64, examples=["build"])
    """What results call it. Default: its number."""
    duration_ns: Duration | None = Field(
        default=None, alias="duration", gt=0, le=MAX_DURATION_NS, examples=["5s"]
    )
    """How long it takes: what still runs then is stopped. Default: until all workloads end."""
    run: Annotated[tuple[Workload, ...], Field(strict=False)] = Field(
        min_length=1, max_length=MAX_PARALLEL, examples=[[{"kind": "tmpfs", "size": "1GiB"}]]
    )
    """The workloads that run at once, at least one. With a `duration` it can be left out: the guest
    idles."""

    @model_validator(mode="before")
    @classmethod
    def _idles(cls, phase: Any) -> Any:
        if isinstance(phase, dict) and phase.get("duration") is not None and "run" not in phase:
            return {**phase, "run": [{"kind": "idle"}]}
        return phase

    @field_validator("run")
    @classmethod
    def _ends(cls, run: tuple[Workload, ...], info: ValidationInfo) -> tuple[Workload, ...]:
        if info.data.get("duration_ns", 0) is None:
            for index, workload in enumerate(run):
                if not workload.ends:
                    what = f"this {workload.kind} never ends, and neither does its phase"
                    raise mistake(what, "give the phase or the workload a `duration`", (index,))
                if getattr(workload, "waits_ns", 0) > MAX_DURATION_NS:
                    what = f"this {workload.kind} waits for more than a day of virtual time"
                    raise mistake(
                        what, "give the phase a `duration`, or let it wait less", (index,)
                    )
        return run


Phases = Annotated[tuple[Phase, ...], Field(strict=False)]
"""Phases in sequence."""

"""Measure two sides in turn, pair by pair, until it is clear which is slower."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emulator.analysis.gate import Allowed, Row, measured_verdict
from emulator.analysis.gate_metrics import MEASURED
from emulator.analysis.gate_results import GateError
from emulator.analysis.gate_statistics import LOOKS
from emulator.simulation.summary import Summary, lookup

Side = Callable[[], Mapping[str, float]]
"""Runs once; the metrics of `MEASURED`."""
Told = Callable[[int], None]
"""Called with the number of pairs so far."""
TIMEOUT_S = 3600


def interleaved(
    before: Side, after: Side, allowed: Allowed, told: Told = lambda _: None, most: int = LOOKS[-1]
) -> Row:
    """Verdict and metrics. Each pair begins with the other side than the last one, so that neither
    always runs on what its predecessor left; the first run of each side is not counted."""
    one: dict[str, list[float]] = {metric: [] for metric in MEASURED}
    other: dict[str, list[float]] = {metric: [] for metric in MEASURED}
    before()
    after()
    looks = [look for look in LOOKS if look < most] + [most]
    found: Row = {}
    for pair in range(looks[-1]):
        sides = [(before, one), (after, other)]
        for run, kept in sides if pair % 2 == 0 else reversed(sides):
            for metric, value in run().items():
                kept[metric].append(value)
        told(pair + 1)
        if pair + 1 in looks:
            found = measured_verdict(one, other, allowed)
            if found["verdict"] != "undecided":
                break
    return {**found, "samples": {"baseline": one, "new": other}}


class Command:
    """A side that is `fpr run` in a process of its own."""

    def __init__(self, fpr: Sequence[str], scenario: Path, text: bytes | None = None) -> None:
        """`fpr` is the command without arguments, of whatever version. `text` is the scenario where
        `scenario` is a pipe, which cannot be read again: each run gets it at its standard input."""
        self._fpr, self._text = fpr, text
        self._scenario = scenario if text is None else Path("/dev/stdin")

    def run(self) -> dict[str, Any]:
        """summary.json; `GateError` with what the command said where it failed."""
        with tempfile.TemporaryDirectory(prefix="fpr-gate-") as folder:
            command = [*self._fpr, "run", str(self._scenario), "--json"]
            shown = " ".join(command[:-1])
            command += ["-o", str(Path(folder) / "out")]
            try:
                done = subprocess.run(
                    command,
                    input=self._text,
                    capture_output=True,
                    check=False,
                    timeout=TIMEOUT_S,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise GateError(
                    f"{' '.join(self._fpr)}: {error}; name an executable of fpr"
                ) from error
        if done.returncode not in (0, 1):  # 1: an expectation, which is not the matter here
            last = " ".join(done.stderr.decode(errors="replace").strip().splitlines()[-3:])
            raise GateError(f"{shown}: exit code {done.returncode}: {last}")
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise GateError(f"{shown}: printed no JSON: {error}") from error
        return found

    def __call__(self) -> dict[str, float]:
        """The metrics that are judged of measured runs."""
        return metrics_of(self.run())


def metrics_of(summary: Summary) -> dict[str, float]:
    """The metrics that are judged of measured runs; `GateError` where one is missing."""
    found = {metric: lookup(summary, metric) for metric in MEASURED}
    for metric, value in found.items():
        if value is None:
            raise GateError(f"an fpr printed no number {metric}; compare with a newer one")
    return {metric: float(value) for metric, value in found.items() if value is not None}

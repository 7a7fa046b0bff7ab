"""How often a gate cries wolf, and how often it sees one: python -m benchmarks.gate_trials [N].

Real memory of this machine is measured, whatever else it does meanwhile. In one half of the trials
both sides are the same; in the other the new one has a tenth more memory to bring in and discard,
which is a slow-down of 10 % of everything that is judged but the single fault.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from emulator.analysis.gate_measure import interleaved, metrics_of
from emulator.scenario.load import parse
from emulator.scenario.model import Scenario
from emulator.simulation.simulate import simulate
from emulator.simulation.summary import summarize

MIB = 50


def scenario(mib: int) -> Scenario:
    """A file of so many MiB comes and goes in real memory."""
    text = f"""
    name: trial
    guest: {{memory: 256MiB, vcpus: 1}}
    host: {{backing: {{kind: memfd}}}}
    reporting: {{delay: 1s}}
    phases:
      - {{run: [{{kind: tmpfs, size: {mib}MiB, keep: 1ms}}]}}
      - {{duration: 3s, run: [{{kind: idle}}]}}
    """
    return parse(text.encode(), "trial", Path.cwd())


class Here:
    """A side that is run in this process."""

    def __init__(self, mib: int) -> None:
        self._scenario = scenario(mib)

    def __call__(self) -> Mapping[str, float]:
        """One run's metrics."""
        return metrics_of(summarize(self._scenario, simulate(self._scenario), None))


def trials(count: int, mib: int) -> Counter[str]:
    """Verdicts of so many comparisons with a file of MIB."""
    verdicts: Counter[str] = Counter()
    pairs = 0
    start = time.monotonic()
    for number in range(count):
        found = interleaved(Here(MIB), Here(mib), {})
        verdicts[found["verdict"]] += 1
        pairs += found["pairs"]
        if number % 10 == 9:
            print(f"  {number + 1} of {count}: {dict(verdicts)}", file=sys.stderr, flush=True)
    seconds = (time.monotonic() - start) / count
    print(f"  {pairs / count:.1f} pairs and {seconds:.1f} s each", file=sys.stderr)
    return verdicts


def main() -> None:
    """Command line of the trials."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    slower = trials(count, MIB * 11 // 10)
    print(f"10 % slower: {slower['regression']} of {count} found; {dict(slower)}", flush=True)
    same = trials(count, MIB)
    print(f"both sides the same: {same['regression']} of {count} said to be worse; {dict(same)}")


if __name__ == "__main__":
    main()

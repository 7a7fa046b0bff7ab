"""`python -m benchmarks.truth_table`: the table of docs/model.md, of many runs of `fpr truth`.

Each scenario of configs/truth runs at each reporting order on a real kernel and on the model, some
times with other seeds. Figures are ranges over the runs; the kernel is booted anew for each. Guests
sleep most of the time, so several run at once; each is followed by its own clock.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from emulator.analysis.real_guest import RealRun, run_real
from emulator.analysis.truth import Tolerance, judge, run_model
from emulator.cli.linux import load_real
from emulator.scenario.model import Scenario
from guest_model.linux.kernel import Kernel, find_kernel
from guest_model.linux.releases import DEFAULT, RELEASES

SCENARIOS = Path(__file__).parents[1] / "configs" / "truth"
NAMES = ("idle", "tmpfs", "memhog", "churn", "forks", "balloon")
ORDERS = (10, 9, 5, 0)
RUNS = 3
AT_ONCE = 4
_HEAD = (
    "| workload | order | passes equal | block for block | reported, MiB | apart | resident apart |"
)


def real(kernel: Kernel, name: str, order: int, seed: int) -> tuple[Scenario, RealRun]:
    """One run on the real kernel."""
    scenario = load_real(str(SCENARIOS / f"{name}.yaml"), (f"reporting.order={order}",), seed)
    return scenario, run_real(scenario, kernel, with_state=True)


def compare(kernel: Kernel, scenario: Scenario, run: RealRun) -> dict[str, Any]:
    """Its comparison, by `fpr.truth/1`."""
    return judge(scenario, run, run_model(scenario, run), Tolerance()).comparison


def row(name: str, order: int, found: Sequence[dict[str, Any]]) -> str:
    """A line of the table."""
    passes = sum(each["passes_kernel"] for each in found)
    sizes = sum(each["passes_with_equal_sizes"] for each in found)
    blocks = sum(each["passes_with_equal_blocks"] for each in found)
    reported = _span([each["reported_bytes_kernel"] >> 20 for each in found], "d")
    apart = _span([each["reported_error_pct"] for each in found], ".2f")
    resident = _span([each["resident_mean_error_pct"] for each in found], ".2f")
    return (
        f"| {name} | {order} | {sizes} of {passes} | {blocks} | {reported} | {apart} % "
        f"| {resident} % |"
    )


def _span(values: Sequence[float], form: str) -> str:
    least, most = f"{min(values):{form}}", f"{max(values):{form}}"
    return least if least == most else f"{least} to {most}"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.truth_table", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    series = [each.series for each in RELEASES]
    parser.add_argument("--release", choices=series, default=DEFAULT.series, help="of Linux")
    parser.add_argument("--orders", default=",".join(map(str, ORDERS)), help="of reporting")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each; seeds count from 1")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="guests that run at once")
    parser.add_argument("--json", action="store_true", help="print JSON, a comparison a run")
    arguments = parser.parse_args()
    names = arguments.names or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no scenario {', '.join(unknown)}; write some of: {', '.join(NAMES)}")
    document = []
    if not arguments.json:
        print(_HEAD, "|---" * 7 + "|", sep="\n", flush=True)
    kernel = find_kernel(version=arguments.release)
    cells = [(name, order) for name in names for order in map(int, arguments.orders.split(","))]
    seeds = range(1, arguments.runs + 1)
    with ThreadPoolExecutor(arguments.at_once) as pool:
        runs = [
            [pool.submit(real, kernel, name, order, seed) for seed in seeds]
            for name, order in cells
        ]
        for (name, order), pending in zip(cells, runs, strict=True):
            found = [compare(kernel, *each.result()) for each in pending]
            document.append({"workload": name, "order": order, "runs": found})
            if not arguments.json:
                print(row(name, order, found), flush=True)
    if arguments.json:
        print(json.dumps({"schema": "fpr.truth_table/1", "rows": document}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m benchmarks [NAME...] [--json]`: run the modules beside this one, print their figures.

Each has `run()`, which gives a list of (what, figure, unit).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path

APART = ("__main__", "gate_trials", "truth_table")


def names() -> list[str]:
    """Every benchmark there is; the table boots real kernels for minutes, and runs by itself."""
    here = Path(__file__).parent
    return sorted(path.stem for path in here.glob("*.py") if path.stem not in APART)


def figure(value: float) -> str:
    """Four significant digits at least, never an exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def main() -> int:
    """Command line of the benchmarks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Print figures.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(names())}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names()))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; write one of: {', '.join(names())}")
    document: dict[str, object] = {
        "schema": "fpr.benchmarks/1",
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }
    figures = []
    for name in arguments.names or names():
        for what, value, unit in importlib.import_module(f"benchmarks.{name}").run():
            figures.append({"benchmark": name, "what": what, "value": value, "unit": unit})
            if not arguments.json:
                print(f"{name:<12}{figure(value):>16} {unit:<10} {what}", flush=True)
    if arguments.json:
        print(json.dumps({**document, "figures": figures}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())

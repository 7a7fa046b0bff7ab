"""`fpr gate`: whether new results are worse than those of a baseline."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from emulator.cli import options
from emulator.cli.main import Exit
from emulator.cli.progress import counted
from emulator.cli.shown import show

YAML = (".yaml", ".yml")


class _Allowed(click.ParamType[tuple[str, float | None]]):
    name = "METRIC[=PCT]"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, float | None]:
        from emulator.scenario.metrics import with_dots

        metric, equals, percent = str(value).partition("=")
        try:
            most = float(percent.removesuffix("%")) if equals else None
        except ValueError:
            self.fail(f"{percent!r} is no number; write for example {metric}=2", param, ctx)
        return with_dots(metric), most


@click.command("gate")
@click.argument("baseline", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    type=_Allowed(),
    help="Let a metric, or all below it, change: by so many percent, or at all. May be repeated.",
)
@click.option("--update", is_flag=True, help="Make NEW the baseline, and compare nothing.")
@click.option(
    "--baseline-fpr", metavar="PATH", help="What runs the scenario BASELINE. Default: this fpr."
)
@click.option("--new-fpr", metavar="PATH", help="What runs the scenario NEW. Default: this fpr.")
@click.option(
    "--pairs",
    type=click.IntRange(8, 1000),
    default=96,
    show_default=True,
    help="Measured scenarios: the most pairs of runs.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Tell of each number that changed, and of each comparison, instead of counting.",
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append a section for a pull request to this file.",
)
@click.option(
    "--annotations/--no-annotations",
    default=None,
    help="Print annotations of GitHub. Default: where it runs this.",
)
@options.as_json("fpr.gate/1")
def command(
    baseline: Path,
    new: Path,
    allowed: tuple[tuple[str, float | None], ...],
    update: bool,
    baseline_fpr: str | None,
    new_fpr: str | None,
    pairs: int,
    everything: bool,
    markdown: Path | None,
    annotations: bool | None,
    as_json: bool,
) -> int:
    """Say whether NEW is worse than BASELINE; exit with 1 if it is.

    Both are results: a summary.json, a folder of `fpr run`, or one that holds several. What the
    model computes has to be the same to the last digit; --update accepts what has changed.

    Or both are scenarios (.yaml), which are run now, by the same fpr or by two. If their host is
    real memory, they run in turn, pair by pair, until it is clear whether one is slower.
    """
    from emulator.analysis import gate
    from emulator.report.gate_text import annotation_lines, markdown_section, render_gate

    if update:
        for path in gate.update(baseline, new):
            click.echo(path)
        return Exit.OK
    if _is_scenario(baseline) or _is_scenario(new):
        document = _run_both((baseline, baseline_fpr), (new, new_fpr), dict(allowed), pairs)
    else:
        if baseline_fpr or new_fpr:
            raise click.UsageError("--baseline-fpr and --new-fpr run scenarios; name .yaml files")
        document = gate.compare(baseline, new, dict(allowed))
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        show(render_gate(document, everything=everything))
    if markdown is not None:
        with markdown.open("a", encoding="utf-8") as file:
            file.write(markdown_section(document, everything=everything))
    if annotations or (annotations is None and os.environ.get("GITHUB_ACTIONS") == "true"):
        stream = sys.stderr if as_json else sys.stdout
        for line in annotation_lines(document, _places(document)):
            print(line, file=stream)
    return Exit.OK if document["passed"] else Exit.FAILED


def _is_scenario(path: Path) -> bool:
    """By its name; what a pipe brings is one, too."""
    from emulator.scenario.source import is_stream

    return path.suffix in YAML or is_stream(path)


def _run_both(
    baseline: tuple[Path, str | None],
    new: tuple[Path, str | None],
    allowed: dict[str, float | None],
    pairs: int,
) -> dict[str, Any]:
    """Run two scenarios and compare; both are read first, so that a mistake costs nothing."""
    from emulator.analysis import gate, gate_measure
    from emulator.analysis.gate_results import GateError, Result
    from emulator.scenario.load import scenario_of
    from emulator.scenario.source import is_stream, read_source

    for path, _ in (baseline, new):
        if not _is_scenario(path):
            raise GateError(f"{path}: is no scenario, and the other one is; name two of a kind")
    sources = [read_source(path) for path, _ in (baseline, new)]
    scenarios = [scenario_of(source) for source in sources]
    kinds = {each.host.backing.kind == "simulated" for each in scenarios}
    if len(kinds) > 1:
        raise GateError("one of them has a simulated host, the other a real one; compare alike")
    own = (sys.executable, "-P", "-m", "fpr")
    before, after = (
        gate_measure.Command((fpr,) if fpr else own, path, source.raw if is_stream(path) else None)
        for (path, fpr), source in zip((baseline, new), sources, strict=True)
    )
    names = {"scenario": scenarios[1].name, "seed": scenarios[1].seed}
    if kinds == {True}:
        results = [
            Result(path, {**side.run(), **names})
            for side, (path, _) in zip((before, after), (baseline, new), strict=True)
        ]
        return gate.document([gate.compare_one([results[0]], [results[1]], allowed)])
    with counted(scenarios[1].name) as progress:
        found = gate_measure.interleaved(
            before, after, allowed, lambda done: progress(done, pairs), pairs
        )
    paths = {"baseline": str(baseline[0]), "new": str(new[0])}
    return gate.document([{**names, "measured": True, **paths, **found}])


def _places(document: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """The scenario's file, as far as the results know it: what the run was called with."""
    found = {}
    for row in document["comparisons"]:
        path = Path(row["new"] or row["baseline"])
        if path.suffix in YAML:
            found[row["scenario"]] = (str(path), 1)
            continue
        try:
            manifest = json.loads((path.parent / "manifest.json").read_bytes())
            named = [each for each in manifest["arguments"] if str(each).endswith(YAML)]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if named:
            found[row["scenario"]] = (str(named[0]), 1)
    return found

"""`fpr compare`: policies, placements and other values side by side, on the same workloads."""

from __future__ import annotations

import traceback
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import click
import structlog

from emulator.analysis.comparison import Compared, compare
from emulator.analysis.comparison_document import document_of, label
from emulator.cli import complete, options
from emulator.cli import seeds as seeds_option
from emulator.cli.finish import finish
from emulator.cli.interrupt import interruptible
from emulator.cli.main import Exit, tell_trace
from emulator.cli.progress import counted
from emulator.cli.shown import window_columns
from emulator.report.comparison_page import comparison_page
from emulator.report.comparison_text import render_comparison
from emulator.report.keep import COMPARISON, keep_document
from emulator.scenario.errors import Mistake, Place, ScenarioError
from emulator.scenario.matrix import load_matrix
from emulator.scenario.overrides import parse_value, shown_option
from emulator.scenario.yaml_source import Node, SourceError
from emulator.simulation import results
from emulator.simulation.pool import cores


@click.command("compare")
@click.argument("path", metavar="FILE", shell_complete=complete.file)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    shell_complete=complete.policy,
    help="A reporting policy to compare; may be repeated.",
)
@click.option(
    "--placement",
    "placements",
    multiple=True,
    metavar="NAME",
    help="A placement of free blocks to compare; may be repeated.",
)
@click.option(
    "--vary",
    "axes",
    multiple=True,
    metavar="PATH=V1,V2",
    help="Values of anything else, e.g. reporting.delay=2s,250ms; may be repeated.",
)
@options.seeds("Seeds to run each cell with: 1..5 or 1,2,3.")
@options.replaced(" in every cell")
@click.option("--phase", metavar="NAME", help="Judge one phase instead of the whole run.")
@options.jobs("Runs at a time. Default: one a core.")
@options.as_json("fpr.compare/1")
@options.output()
def command(
    path: str,
    policies: tuple[str, ...],
    placements: tuple[str, ...],
    axes: tuple[str, ...],
    seeds: str | None,
    sets: tuple[str, ...],
    phase: str | None,
    jobs: int | None,
    as_json: bool,
    output: Path | None,
) -> int:
    """Run every workload with every policy, placement and value, with each seed, and say what
    each gives back and costs.

    FILE is a comparison, or a scenario, which the options then make one of. Cells that fail are
    named, and the others go on. Ctrl-C and SIGTERM keep what is done, marked as incomplete.
    """
    given = _options(policies, placements, axes, seeds, phase)
    matrix = load_matrix(path, options=given, sets=sets)
    if not given and len(matrix.cells) == len(matrix.comparison.seeds) == 1:
        said = "there is one cell: --policy, --vary or --seeds add others"
        structlog.get_logger().warning(said, instead=f"fpr run {path}")
    started = datetime.now().astimezone()
    folder = output or results.default_folder(matrix.comparison.name, started)
    results.check_free(folder)
    stopped = interruptible()
    with counted(matrix.comparison.name) as progress:
        compared = compare(matrix, processes=jobs or cores(), progress=progress, stopped=stopped)
    document = {**document_of(compared), "version": version("fpr")}
    raw = results.as_json(document)
    folder = output or results.default_folder(matrix.comparison.name, started)
    finish(
        folder,
        lambda: keep_document(folder, COMPARISON, raw, lambda: comparison_page(document)),
        text=lambda: render_comparison(document, window_columns()),
        document=raw if as_json else None,
    )
    code = _tell_failures(compared, document["cells"])
    if stopped():
        click.echo(stopped.told(compared.complete), err=True)
        return stopped.exit_code
    return code


def _tell_failures(compared: Compared, cells: list[dict[str, object]]) -> int:
    """Name the cells that failed on standard error; the exit code that the first asks for."""
    code: int = Exit.OK
    told: set[str] = set()
    for result, cell in zip(compared.cells, cells, strict=True):
        for seed, error in sorted(result.errors.items()):
            click.echo(f"{label(cell)}, seed {seed}: {cell['error']}", err=True)
            tell_trace(error)
            own = getattr(error, "exit_code", None)
            if not isinstance(own, int):
                own = Exit.DEFECT
                trace = "".join(traceback.format_exception(error))
                if trace not in told:  # the same control stands behind many cells
                    click.echo(trace, err=True, nl=False)
                told.add(trace)
            code = code or own
    return code


def _options(
    policies: tuple[str, ...],
    placements: tuple[str, ...],
    axes: tuple[str, ...],
    seeds: str | None,
    phase: str | None,
) -> dict[str, Node]:
    """Options as the keys of a comparison that they replace."""
    nodes: dict[str, Node] = {}
    mistakes: list[Mistake] = []
    for key, option, names in (
        ("policies", "--policy", policies),
        ("placements", "--placement", placements),
    ):
        entries = [Node(Place(f"{option} {shown_option(name)}"), name) for name in names]
        if entries:
            nodes[key] = Node(entries[0].place, list(entries))
    if seeds is not None:
        place = seeds_option.place(seeds)
        try:
            found = seeds_option.read(seeds)
            nodes["seeds"] = Node(place, [Node(place, seed) for seed in found])
        except ScenarioError as error:
            mistakes += error.mistakes
    if phase is not None:
        nodes["phase"] = Node(Place(f"--phase {shown_option(phase)}"), phase)
    vary = Node(Place("--vary"), dict[str, Node]())
    for text in axes:
        _add_axis(vary, text, mistakes)
    if axes:
        nodes["vary"] = vary
    if mistakes:
        raise ScenarioError(mistakes)
    return nodes


def _add_axis(vary: Node, text: str, mistakes: list[Mistake]) -> None:
    place = Place(f"--vary {shown_option(text)}")
    name, equals, values = text.partition("=")
    if not equals or not values.strip():
        instead = "write --vary reporting.delay=2s,250ms"
        mistakes.append(Mistake(place, ("vary",), "no values in it", instead))
        return
    try:
        node = parse_value(f"[{values}]", place, ("vary", name))
    except SourceError as error:
        mistakes.append(error.mistake)
        return
    assert isinstance(vary.value, dict)
    if name.strip() in vary.value:
        what, instead = "this axis is there already", f"write --vary {name.strip()}=V1,V2,..."
        mistakes.append(Mistake(place, ("vary", name.strip()), what, instead))
        return
    vary.value[name.strip()] = node
    vary.key_places[name.strip()] = place

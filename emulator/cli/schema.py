"""`fpr schema`: the JSON Schema of scenario files."""

from __future__ import annotations

import click

from emulator.scenario.schema import json_schema_text


@click.command("schema")
@click.argument("kind", type=click.Choice(["scenario", "comparison"]), default="scenario")
@click.option("--json", "_as_json", is_flag=True, help="Accepted for uniformity; it is JSON.")
def command(kind: str, _as_json: bool) -> None:
    """Print the JSON Schema of scenario files, or of comparisons, for editors.

    configs/scenario.schema.json and configs/comparison.schema.json hold the same; the first line
    of each file there names the one that it goes by.
    """
    click.echo(json_schema_text(kind), nl=False)

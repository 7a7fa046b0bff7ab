"""`fpr schema`: the JSON Schema of scenario files."""

from __future__ import annotations

import click

from emulator.scenario.schema import json_schema_text


@click.command("schema")
@click.option("--json", "_as_json", is_flag=True, help="Accepted for uniformity; it is JSON.")
def command(_as_json: bool) -> None:
    """Print the JSON Schema of scenario files, for editors.

    configs/scenario.schema.json holds the same; the first line of each scenario there names it.
    """
    click.echo(json_schema_text(), nl=False)

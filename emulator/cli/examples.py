"""`fpr examples`: a starting point: scenarios with expectations, and what runs them in CI."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import click

from emulator.cli import options
from emulator.cli.main import Exit

_CI = {"github": Path(".github/workflows/scenarios.yml"), "gitlab": Path(".gitlab-ci.yml")}
"""Where each CI looks for its file, from the root of a repository."""


class TakenError(Exception):
    """Files of these names exist already; nothing was written."""

    exit_code = Exit.INVALID


@click.command("examples")
@click.argument(
    "folder", type=click.Path(path_type=Path), default=Path("scenarios"), metavar="[DIR]"
)
@click.option(
    "--ci",
    type=click.Choice(sorted(_CI)),
    help="Also write the file that runs them there, below the working directory.",
)
@options.as_json("what was written")
def command(folder: Path, ci: str | None, as_json: bool) -> int:
    """Write a few scenarios with expectations into DIR (scenarios), to begin with.

    pytest runs them, each expectation being a test. Nothing that exists is replaced.
    """
    from emulator.scenario.schema import json_schema_text

    package = resources.files("emulator.examples")
    texts = {
        folder / each.name: each.read_text(encoding="utf-8")
        for each in sorted(package.iterdir(), key=lambda each: each.name)
        if each.name.endswith(".scenario.yaml")
    }
    texts[folder / "scenario.schema.json"] = json_schema_text()
    if ci is not None:
        texts[_CI[ci]] = (package / f"{ci}.yml").read_text(encoding="utf-8")
    taken = sorted(str(path) for path in texts if path.exists() or path.is_symlink())
    if taken:
        raise TakenError(
            f"{', '.join(taken)}: exist already, and nothing was written; name another folder"
        )
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    if as_json:
        click.echo(json.dumps({"written": [str(path) for path in texts]}, indent=2))
        return Exit.OK
    for path in texts:
        click.echo(path)
    first = next(path for path in texts if path.name.startswith("file-churn"))
    click.echo(f"run one: fpr run {first}\ntest all: pytest {folder}", err=True)
    return Exit.OK

"""`fpr completion`: what makes a shell complete commands, options and values."""

from __future__ import annotations

import json

import click
from click.shell_completion import get_completion_class

from emulator.cli import options
from emulator.cli.main import Exit, cli

VARIABLE = "_FPR_COMPLETE"
"""What the shell's function sets when it asks for completions; click looks at it."""


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@options.as_json("the script as JSON")
def command(shell: str, as_json: bool) -> int:
    """Print a script that makes a shell complete fpr's commands, options, files, policies and keys.

    bash: fpr completion bash > ~/.local/share/bash-completion/completions/fpr.
    zsh: fpr completion zsh > a file _fpr in a folder of $fpath.
    fish: fpr completion fish > ~/.config/fish/completions/fpr.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these shells"
    script = kind(cli, {}, "fpr", VARIABLE).source()
    click.echo(json.dumps({"shell": shell, "script": script}) if as_json else script)
    return Exit.OK

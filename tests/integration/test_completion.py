"""What a shell is offered, by click's protocol with it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def offered(words: str) -> list[str]:
    """What bash would be told for what has been typed; the last word is not finished."""
    done = subprocess.run(
        [sys.executable, "-c", "from emulator.cli.main import main; main()"],
        env={
            **os.environ,
            "_FPR_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("fpr comp", ["plain,compare", "plain,completion"]),
        ("fpr run --no", ["plain,--no-control"]),
        ("fpr run conf", ["file,conf"]),
        ("fpr compare --policy bal", ["plain,balloon"]),
        ("fpr run --set host.cos", ["plain,host.costs="]),
        ("fpr run --set reporting.policy=bo", ["plain,reporting.policy=boundary"]),
        ("fpr completion fi", ["plain,fish"]),
    ],
)
def test_a_shell_is_offered(words: str, expected: list[str]) -> None:
    """Commands, options, files, policies and keys."""
    assert offered(words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed(shell: str) -> None:
    """One that calls fpr."""
    done = subprocess.run(
        [sys.executable, "-c", "from emulator.cli.main import main; main()", "completion", shell],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"_FPR_COMPLETE={shell}_complete" in done.stdout

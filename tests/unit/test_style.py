"""The style that no linter checks. Each rule has a canary: a text in which it finds a breach."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulator.native import generate

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("fpr", "emulator", "guest_model", "host_model", "configs", "tests", "benchmarks", "docs")
FOLDERS += (".ci", ".github")
GENERATED = (
    "emulator/native/_core.c",
    "configs/comparison.schema.json",
    "configs/scenario.schema.json",
    "docs/reference/cli.md",
    "docs/reference/scenario.md",
)
DATA = "tests/data/"
LINE_MAX = 100
FUNCTION_MAX = 70
FILE_MAX = 500
ARROWS = {
    "emulator/native/": ("emulator/native/",),
    "guest_model/native/": ("guest_model/native/", "emulator/native/"),
    "host_model/native/": ("host_model/native/", "emulator/native/"),
}
"""What C of each folder may include."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
(EXTENSION,) = PROJECT["tool"]["setuptools"]["ext-modules"]

Finding = tuple[int, str]
"""Line from 1, and what is wrong with it."""
Rule = Callable[[str, str], Iterator[Finding]]
"""Takes a path in the project and a text."""


def project_files() -> list[str]:
    """Paths of all texts that people wrote, from the project's root."""
    found = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    paths = [path.relative_to(ROOT) for path in found]
    binary = (".so", ".pyc", ".gz", ".npz", ".swp", ".png")
    return sorted(
        str(path)
        for path in paths
        if not {"__pycache__", "vendor"} & set(path.parts)
        and path.suffix not in binary
        and str(path) not in GENERATED
        and not str(path).startswith(DATA)
    )


FILES = project_files()


def is_code(path: str) -> bool:
    """Python, C, or what drives them."""
    return path.endswith((".py", ".c", ".h", "Makefile", ".ci/run"))


def lines_are_short(path: str, text: str) -> Iterator[Finding]:
    """At most 100 columns in code; prose and tables are the editor's matter."""
    for number, line in enumerate(text.splitlines(), start=1):
        shown = re.sub(r"  # (noqa|type): .*", "", line)
        if is_code(path) and len(shown) > LINE_MAX:
            yield number, f"{len(line)} columns, at most {LINE_MAX}"


def files_are_short(path: str, text: str) -> Iterator[Finding]:
    """At most 500 lines: a longer file holds more than one thing."""
    count = text.count("\n")
    if count > FILE_MAX and path != "LICENSE":
        yield FILE_MAX, f"{count} lines, at most {FILE_MAX}"


def python_functions_are_short(path: str, text: str) -> Iterator[Finding]:
    """At most 70 lines, decorators and docstring included."""
    for node in ast.walk(ast.parse(text)) if path.endswith(".py") else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or 0) - node.lineno + 1 + len(node.decorator_list)
            if count > FUNCTION_MAX:
                yield node.lineno, f"{node.name} has {count} lines, at most {FUNCTION_MAX}"


def c_functions_are_short(path: str, text: str) -> Iterator[Finding]:
    """At most 70 lines. The layout puts a function's braces, and nothing else's, at column 0."""
    lines = text.splitlines() if path.endswith((".c", ".h")) else []
    start = 0
    for number, line in enumerate(lines, start=1):
        if line == "{":
            start = number - 1  # its signature, which is one line nearly always
        elif line == "}" and start:
            if number - start + 1 > FUNCTION_MAX:
                yield start, f"{number - start + 1} lines, at most {FUNCTION_MAX}"
            start = 0


def includes_follow_the_arrows(path: str, text: str) -> Iterator[Finding]:
    """Guest and host meet at ports only, and the device's side knows neither."""
    allowed = next((to for folder, to in ARROWS.items() if path.startswith(folder)), ("",))
    lines = text.splitlines() if path.endswith((".c", ".h")) else []
    for number, line in enumerate(lines, start=1):
        included = re.match(r'\s*#\s*include\s+"(.*)"', line)
        if included and not included[1].startswith(allowed):
            yield number, f"{included[1]} is none of {', '.join(allowed)}"


def nothing_is_left_for_later(_path: str, text: str) -> Iterator[Finding]:
    """What is to be done stands in the tracker."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(r"\b(TOD[O]|FIXM[E]|XX[X])\b", line):
            yield number, "a note of what is to be done"


def no_machine_is_named(_path: str, text: str) -> Iterator[Finding]:
    """Paths and package hosts of the machine at hand mean nothing on another one."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.search(r"(?<![\w.~-])/(work|root|home|tmp|opt)/|extra[-]index|python[h]osted", line):
            yield number, "a path or host of one machine"


def public_headers_are_documented(path: str, text: str) -> Iterator[Finding]:
    """cffi and people read them: ASCII, an opening comment, and one above every function."""
    if path not in generate.HEADERS:
        return
    if not text.startswith("/*"):
        yield 1, "no opening comment"
    documented = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.isascii():
            yield number, "not ASCII"
        if re.match(r"\w[\w *]*\bfpr_\w+\(", line) and not documented:
            yield number, "a function without a comment above it"
        # A comment holds for the declarations below it, up to the next empty line.
        documented = bool(line) and (documented or line.startswith(("/*", " *")))


def c_is_built_and_bound(path: str, text: str) -> Iterator[Finding]:
    """Every C file is compiled; every header is bound, or says that it is private."""
    if not path.startswith(tuple(ARROWS)):
        return
    if path.endswith(".c") and path not in EXTENSION["sources"]:
        yield 1, "not among `sources` in pyproject.toml"
    opening = text.partition("*/")[0].lower()
    if path.endswith(".h") and path not in generate.HEADERS and "private" not in opening:
        yield 1, "neither in HEADERS of generate.py nor said to be private"


def every_test_states_a_fact(path: str, text: str) -> Iterator[Finding]:
    """A test's docstring is the sentence that it proves."""
    for node in ast.walk(ast.parse(text)) if Path(path).name.startswith("test_") else ():
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            docstring = ast.get_docstring(node) or ""
            if not docstring.endswith((".", "?", "!", ":")):
                yield node.lineno, f"{node.name} has no docstring that is a sentence"


def pages_name_what_exists(path: str, text: str) -> Iterator[Finding]:
    """Links lead to files; a file that is named with its folder is there."""
    here = (ROOT / path).parent
    for number, line in enumerate(text.splitlines() if path.endswith(".md") else [], start=1):
        for target in re.findall(r"\]\((?!\w+:)([^)#]+)", line):
            if not (here / target).exists():
                yield number, f"no file {target}"
        for named in re.findall(r"`([\w.-]+(?:/[\w.-]+)+\.(?:py|c|h|md|yaml))`", line):
            if named.startswith("scenarios/"):
                continue  # what `fpr examples` writes
            if "NAME" not in named and not any(f"/{file}".endswith(f"/{named}") for file in FILES):
                yield number, f"no file {named}"


@dataclass(frozen=True)
class Canary:
    """A path and a text that break a rule."""

    rule: Rule
    path: str
    text: str


CANARIES = (
    Canary(lines_are_short, "a/b.py", "x" * (LINE_MAX + 1)),
    Canary(files_are_short, "docs/a.md", "\n" * (FILE_MAX + 1)),
    Canary(python_functions_are_short, "a/b.py", "def f():\n" + "    f()\n" * FUNCTION_MAX),
    Canary(
        c_functions_are_short, "a/b.c", "int f(void)\n{\n" + "    f();\n" * FUNCTION_MAX + "}\n"
    ),
    Canary(includes_follow_the_arrows, "guest_model/native/a.c", '#include "host_model/b.h"'),
    Canary(includes_follow_the_arrows, "host_model/native/a.h", '#include "guest_model/a.h"'),
    Canary(includes_follow_the_arrows, "emulator/native/a.c", '#include "host_model/native/b.h"'),
    Canary(nothing_is_left_for_later, "a.py", "# TO" + "DO: later"),
    Canary(no_machine_is_named, "a.yaml", "file: " + "/work" + "/a"),
    Canary(public_headers_are_documented, generate.HEADERS[0], "/* A. */\n\nint fpr_a(void);\n"),
    Canary(public_headers_are_documented, generate.HEADERS[0], "/* \N{LATIN SMALL LETTER AE} */"),
    Canary(public_headers_are_documented, generate.HEADERS[0], "int a;"),
    Canary(c_is_built_and_bound, "emulator/native/forgotten.c", ""),
    Canary(c_is_built_and_bound, "emulator/native/forgotten.h", "/* Public. */ /* private */"),
    Canary(pages_name_what_exists, "docs/a.md", "see [b](no_such_page.md)"),
    Canary(pages_name_what_exists, "docs/a.md", "see `emulator/no_such_file.py`"),
    Canary(every_test_states_a_fact, "tests/unit/test_a.py", "def test_a():\n    assert True\n"),
)
RULES = tuple(dict.fromkeys(canary.rule for canary in CANARIES))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps_the_rule(rule: Rule) -> None:
    """No file breaks it; the message names file and line."""
    breaches = [
        f"{path}:{line}: {what}"
        for path in FILES
        for line, what in rule(path, (ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not breaches, "\n".join(breaches)


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.rule.__name__)
def test_the_rule_can_fail(canary: Canary) -> None:
    """A canary: the rule finds the breach in a text made for it."""
    assert list(canary.rule(canary.path, canary.text))


def test_all_code_is_read() -> None:
    """The rules see the whole tree: a check of no files would always pass."""
    assert {"Makefile", "pyproject.toml", ".ci/run", "tests/unit/test_style.py"} <= set(FILES)
    assert set(EXTENSION["sources"]) - set(GENERATED) <= set(FILES)
    assert set(generate.HEADERS) <= set(FILES)


def test_the_page_shows_the_arrows_that_are_checked() -> None:
    """docs/architecture.md draws the layers of import-linter's contract, in their order."""
    (contract,) = PROJECT["tool"]["importlinter"]["contracts"]
    page = (ROOT / "docs" / "architecture.md").read_text()
    drawn = page.partition("## Arrows")[2].split("```")[1].strip().splitlines()
    assert [re.split(r"\s{2,}", line)[0] for line in drawn] == contract["layers"]

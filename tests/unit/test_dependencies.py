"""What pyproject.toml asks for is what is imported: nothing is missing, and nothing is idle."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"fpr", "emulator", "guest_model", "host_model", "tests", "benchmarks"}
BROUGHT = {"pytest", "pydantic-core"}
"""Already there: pytest loads the plugin that imports it, and pydantic brings its core along."""
TOOLS = {
    "clang-format": ("Makefile", "/clang-format"),
    "furo": ("docs/conf.py", '"furo"'),
    "import-linter": ("Makefile", "lint-imports"),
    "mypy": ("Makefile", "mypy"),
    "myst-parser": ("docs/conf.py", "myst_parser"),
    "pytest-xdist": ("Makefile", "pytest -n "),
    "ruff": ("Makefile", "ruff check"),
    "setuptools": ("Makefile", "import setuptools"),
    "sphinx": ("Makefile", "sphinx-build"),
    "types-cffi": ("pyproject.toml", "strict = true"),
    "types-pyyaml": ("pyproject.toml", "strict = true"),
}
"""Of the developers: what is called and not imported, and a file that calls it in these words."""


def names(requirements: Iterable[str]) -> set[str]:
    """Distributions as package indexes compare their names."""
    found = (re.match(r"[\w.-]+", each) for each in requirements)
    return {re.sub(r"[-_.]+", "-", each[0]).lower() for each in found if each}


def modules(text: str) -> set[str]:
    """The first names of all that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


def imported(*folders: str) -> set[str]:
    """Distributions that files below these folders import; a module's name where none has it."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    found = set().union(*(modules(path.read_text()) for path in paths if "data" not in path.parts))
    of_module = packages_distributions()
    others = found - OWN - set(sys.stdlib_module_names)
    return names(name for each in others for name in of_module.get(each, [each]))


EXTRAS = {name: names(each) for name, each in PROJECT["optional-dependencies"].items()}
DEVELOPERS = EXTRAS.pop("dev")
OPTIONAL: set[str] = set().union(*EXTRAS.values())
REQUIRED = names(PROJECT["dependencies"])


def test_what_the_packages_import_is_required_or_an_extra() -> None:
    """And the other way round: what is asked for is imported."""
    assert imported("fpr", "emulator", "guest_model", "host_model") - BROUGHT == REQUIRED | OPTIONAL
    assert not REQUIRED & OPTIONAL, "an extra brings what fpr has without it"


def test_an_extra_is_named_where_it_is_missed() -> None:
    """The command that needs it says what to install."""
    sources = "".join(path.read_text() for path in (ROOT / "emulator" / "cli").glob("*.py"))
    assert set(re.findall(r"pip install 'fpr\[(\w+)\]'", sources)) == set(EXTRAS)


def test_developers_get_what_the_tests_import_and_the_tools_that_are_called() -> None:
    """Every extra as well, and nothing else."""
    tools = imported("tests", "benchmarks") - REQUIRED
    assert tools | OPTIONAL | set(TOOLS) == DEVELOPERS
    unused = [
        name for name, (file, words) in TOOLS.items() if words not in (ROOT / file).read_text()
    ]
    assert unused == []


def test_an_import_in_a_function_is_found() -> None:
    """A canary: most of ours are there."""
    text = "def run():\n    from scipy.stats import bootstrap\n    import numpy.random\n"
    assert modules(text) == {"scipy", "numpy"}

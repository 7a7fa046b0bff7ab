"""Sphinx: `make docs` builds the site and the man pages from the pages in this folder."""

import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

project = _PROJECT["name"]
release = version = _PROJECT["version"]
copyright = "the authors of fpr; Apache-2.0"
extensions = ["myst_parser"]
exclude_patterns = ["README.md"]  # the list of pages, for who reads them without Sphinx
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"{project} {version}"
html_show_copyright = False
html_show_sphinx = False
man_pages = [
    ("reference/cli", "fpr", _PROJECT["description"], "", 1),
    ("reference/scenario", "fpr-scenario", "scenarios of virtual machines for fpr", "", 5),
]

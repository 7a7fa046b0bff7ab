"""The frame of every report: one HTML file that needs nothing else, and asks for nothing.

Its content security policy allows exactly the styles and scripts that are in it, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

FILE = "report.html"
"""The name of a report in a folder of results."""
_HERE = Path(__file__).resolve().parent
_UPLOT = _HERE / "vendor" / "uplot"


def page(
    title: str,
    body: Iterable[str],
    *,
    style: str = "",
    scripts: Sequence[str] = (),
    data: Mapping[str, Any] | None = None,
) -> str:
    """The whole page. `style` is added to the common one; `scripts` are files beside this one, run
    in order after uPlot, which find `data` as JSON in the element #data."""
    sheets = [_read(_HERE / "page.css") + style]
    sources = []
    if scripts:
        sheets.insert(0, _read(_UPLOT / "uPlot.min.css"))
        sources = [_read(_UPLOT / "uPlot.iife.min.js"), *(_read(_HERE / name) for name in scripts)]
    policy = (
        f"default-src 'none'; style-src {_hashes(sheets)}; script-src {_hashes(sources)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{escape(title)}</title>",
            *(f"<style>{sheet}</style>" for sheet in sheets),
            "</head>\n<body>\n<main>",
            *body,
            f'</main>\n<footer class="dim">fpr {escape(version("fpr"))}</footer>',
            *([] if data is None else [_data(data)]),
            *(f"<script>{source}</script>" for source in sources),
            "</body>\n</html>\n",
        ]
    )


def value(key: str, found: Any, text: str) -> str:
    """A figure as people read it, with the number and its place in the JSON beside it."""
    number = escape(json.dumps(found))
    return f'<data data-key="{escape(key)}" value="{number}">{escape(text)}</data>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> str:
    """A table of cells that are HTML already; the first `names` columns are words."""
    kinds = [' class="name"' if at < names else "" for at in range(len(head))]
    lines = [
        '<div class="wide"><table><thead><tr>',
        *(f'<th scope="col"{kind}>{cell}</th>' for cell, kind in zip(head, kinds, strict=True)),
        "</tr></thead><tbody>",
    ]
    for row in rows:
        cells = [f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def folded(title: str, inside: str) -> str:
    """Something that is shown when it is asked for."""
    return f"<details><summary>{escape(title)}</summary>\n{inside}\n</details>"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hashes(texts: Sequence[str]) -> str:
    """What allows these, and nothing else."""
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(each).decode()}'" for each in digests) or "'none'"


def _data(data: Mapping[str, Any]) -> str:
    """No text can end the element, whatever names a user chose."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="data">{text}</script>'

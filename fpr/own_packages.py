"""The packages that fpr consists of, from where fpr itself lies.

Their names are not rare: a repository may have an `emulator` of its own, which comes first on
`sys.path` where `PYTHONPATH` or `python -m` puts that folder there. So a process of fpr imports its
own before all else; from then on `import emulator.scenario` looks in the right folder.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

PACKAGES = ("emulator", "guest_model", "host_model")
"""Each imports nothing by itself: its `__init__.py` is a docstring."""
HOME = Path(__file__).absolute().parents[1]
"""Where they lie, beside this one."""


class ForeignPackageError(Exception):
    """One of `PACKAGES` is another package than fpr's, or is missing."""

    exit_code = 3


def adopt(home: Path = HOME) -> None:
    """Import `PACKAGES` from the folder `home`, whatever else `sys.path` finds by these names.

    Raises `ForeignPackageError` where one is missing there, or this process has another already.
    """
    sys.path.insert(0, str(home))
    try:
        for name in PACKAGES:
            found = _imported(name)
            if found != home / name:
                raise ForeignPackageError(
                    f"fpr needs its own package {name}, in {home}; this process has another one, "
                    f"{found}; start fpr in a process of its own (`fpr`, or `python -m fpr`), or "
                    "install it again: pip install --force-reinstall fpr"
                )
    finally:
        sys.path.remove(str(home))


def _imported(name: str) -> Path | None:
    """Import a package; its folder, None where it is missing or has no file of its own."""
    try:
        file = importlib.import_module(name).__file__
    except ModuleNotFoundError:
        return None
    return Path(file).absolute().parent if file else None

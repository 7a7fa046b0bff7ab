"""Where tests find scenarios, and recordings: the project's, and more beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parent / "data"
BOOT_TMPFS = DATA / "recordings" / "boot_tmpfs"
CONFIGS = Path(__file__).resolve().parents[1] / "configs"
COMPARISONS = sorted(
    path
    for path in CONFIGS.glob("*.yaml")
    if "$schema=comparison.schema.json" in path.read_text().partition("\n")[0]
)
SCENARIOS = sorted(set(CONFIGS.glob("*.yaml")) - set(COMPARISONS))
SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(*parts: str) -> Path:
    """A file or folder of `../shared`, beside the checkout; skips the test where it is absent."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"../shared/{'/'.join(parts)} is not beside this checkout")
    return path

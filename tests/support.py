"""Where tests find scenarios and recordings, and which of them this machine can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from host_model.backing.machine import huge_pool
from host_model.backing.shmem_thp import ShmemThpBacking

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


def needs_huge_pool(pages: int) -> pytest.MarkDecorator:
    """Skipped where the hugetlb pool has not `pages` to spare: tests change no settings."""
    free = huge_pool().available
    why = f"the hugetlb pool has {free} of {pages} pages free (sysctl vm.nr_hugepages)"
    return pytest.mark.skipif(free < pages, reason=why)


needs_shmem_thp = pytest.mark.skipif(
    not ShmemThpBacking.available(), reason="shared memory gets no huge pages here (shmem_enabled)"
)
needs_no_swap = pytest.mark.skipif(
    len(Path("/proc/swaps").read_text().splitlines()) > 1, reason="this machine swaps"
)

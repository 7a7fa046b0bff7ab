"""The table of the releases of Linux that a real guest can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from guest_model.linux.kernel import Kernel
from guest_model.linux.releases import DEFAULT, RELEASES, release_of


@pytest.mark.parametrize(
    ("version", "series"),
    [
        ("6.1.176", "6.1"),
        ("6.1.0-9-amd64", "6.1"),
        ("6.12.113", "6.12"),
        ("7.2.7", "7.2"),
        ("6.18.1", None),
        ("6.15", None),
        ("modules", None),
    ],
)
def test_a_version_leads_to_its_row(version: str, series: str | None) -> None:
    """6.12 is not a 6.1, and a version without a row has none."""
    row = Kernel(Path("linux.uml"), Path("lib") / version).release
    assert row == release_of(version)
    assert (row.series if row else None) == series


def test_each_row_is_another_series_of_another_suite() -> None:
    """A suite's package is of one series, so two rows cannot share one."""
    assert len({each.series for each in RELEASES}) == len(RELEASES)
    assert len({each.suite for each in RELEASES}) == len(RELEASES)
    assert release_of(DEFAULT.series) is DEFAULT

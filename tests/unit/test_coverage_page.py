"""The page on conformance is made from the tests."""

from __future__ import annotations

import pytest

from tests.conformance import coverage


def test_the_page_is_fresh() -> None:
    """docs/coverage-virtio.md is what the tests say; `make pages` renews it."""
    assert coverage.PAGE.read_text(encoding="utf-8") == coverage.page()


@pytest.mark.parametrize(
    ("name", "rules", "title"),
    [
        ("test_bal_rep_09_10_each_alone", ("BAL-REP-09", "BAL-REP-10"), "each alone"),
        ("test_bal_rep_07_psn_03_a_pattern", ("BAL-REP-07", "BAL-PSN-03"), "a pattern"),
        ("test_vir_03_bal_ini_01_nothing", ("VIR-03", "BAL-INI-01"), "nothing"),
        ("test_bal_vq_02_all_five_queues", ("BAL-VQ-02",), "all five queues"),
        ("test_a_batch_of_32_blocks", (), "a batch of 32 blocks"),
    ],
)
def test_a_name_holds_rules_and_a_title(name: str, rules: tuple[str, ...], title: str) -> None:
    """Numbers come first, family by family; the rest is a title."""
    assert coverage.rules_and_title(name) == (rules, title)


def test_every_family_has_a_rule_under_test() -> None:
    """A family without a test would be an empty table, and a misspelt number no row at all."""
    tested = {rule.rpartition("-")[0] for row in coverage.rows() for rule in row.rules}
    assert tested == set(coverage.FAMILIES)

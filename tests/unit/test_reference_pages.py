"""docs/reference is what the code says of itself."""

from __future__ import annotations

import pytest

from tests.conformance import reference_pages

PAGES = reference_pages.pages()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_fresh(name: str) -> None:
    """`make pages` renews it."""
    text = PAGES[name].rstrip("\n") + "\n"
    assert (reference_pages.FOLDER / name).read_text(encoding="utf-8") == text


def test_no_command_and_no_key_is_left_out() -> None:
    """Every command has a section; every key of the guest is named with its type."""
    assert PAGES["cli.md"].count("\n## fpr ") >= 15
    assert "`memory` (size, default `4GiB`)" in PAGES["scenario.md"]

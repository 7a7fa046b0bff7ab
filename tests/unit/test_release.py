"""Releases of Linux as people name them, and whose rules the model follows."""

from __future__ import annotations

import pytest

from guest_model.allocator.rules import parse_version, rules_of
from guest_model.release import ReleaseError, followed, parse_release
from guest_model.reporting.versions import version_of

RUN_SOMEWHERE = [
    *(f"5.{minor}" for minor in range(7, 20)),
    *(f"6.{minor}" for minor in range(20)),
    *(f"7.{minor}" for minor in range(4)),
    *("5.14.0-427.13.1.el9_4.x86_64", "6.1.0-21-amd64", "6.1.96", "6.1.97", "6.6.36", "6.6.87"),
    *("6.8.12-4-pve", "6.8.0-45-generic", "6.6.87.2-microsoft-standard-WSL2", "6.9.7", "6.9.8"),
    *("6.12-rc3", "6.12.28", "6.12.29", "6.12.64", "6.12.65", "6.14.6", "6.14.7", "6.14.0-63.fc42"),
    *("6.18.4", "6.18.5", "6.18.40", "7.2.13", "6.19.0-rc1+", "99.1"),
]


@pytest.mark.parametrize("release", RUN_SOMEWHERE)
def test_the_release_that_is_named_has_the_same_rules(release: str) -> None:
    """Whoever runs that one gets the same: of the allocator, and of reporting."""
    found = followed(release)
    named, asked = parse_version(found.rules), parse_release(release)
    first = named if found.rules.count(".") == 2 else parse_version(f"{found.rules}.0")
    assert rules_of(first) == rules_of(asked)
    assert version_of(found.rules) == version_of(release)
    assert first <= asked


@pytest.mark.parametrize(
    ("release", "rules", "assumed"),
    [
        ("5.10", "5.10", "5.10"),
        ("5.15", "5.14", "5.15"),
        ("6.1", "6.1.97", "6.1"),
        ("6.1.50", "5.18", None),
        ("6.1.0-21-amd64", "6.1.97", "6.1"),
        ("6.4", "6.2", "6.4"),
        ("6.6.87", "6.6.37", None),
        ("6.8", "6.8", "6.8"),
        ("6.8.12-4-pve", "6.8", None),
        ("6.12", "6.12.65", "6.12"),
        ("6.12.30", "6.12.29", None),
        ("6.13", "6.10", "6.13"),
        ("6.14", "6.14.7", "6.14"),
        ("6.17.2", "6.15", None),
        ("6.18", "6.18.5", "6.18"),
        ("7.0", "6.19", "7.0"),
        ("7.2.13", "7.2", None),
        ("8.1", "7.2", "8.1"),
    ],
)
def test_the_rules_and_the_point_release_are_told(
    release: str, rules: str, assumed: str | None
) -> None:
    """A name without a point release is the newest of its series."""
    found = followed(release)
    assert (found.rules, found.assumed) == (rules, assumed)
    assert found.is_beyond == (release == "8.1")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("5.6", "Linux 5.6 reports no free pages: that came with 5.7"),
        ("4.18.0-553.el8", "Linux 4.18 reports no free pages"),
        ("5.20", "there is no Linux 5.20"),
        ("6.20.1", "there is no Linux 6.20"),
        ("6", "is no release of Linux"),
        ("6.", "is no release of Linux"),
        ("6.x", "is no release of Linux"),
        ("v6.8", "is no release of Linux"),
        ("6.8 ", "is no release of Linux"),
        ("6.8abc", "is no release of Linux"),
        ("٦.٨", "is no release of Linux"),
        ("6.8-\x1b[2J", "is no release of Linux"),
        ("", "is no release of Linux"),
        ("6.8-" + "x" * 200, "is no release of Linux"),
        ("1000.1", "is no release of Linux"),
    ],
)
def test_what_is_no_release_is_refused(text: str, what: str) -> None:
    """With the reason, and what to write; nothing is guessed from the spelling."""
    with pytest.raises(ReleaseError) as caught:
        parse_release(text)
    assert what in caught.value.what
    assert "did you mean" not in str(caught.value)
    assert len(str(caught.value)) < 200

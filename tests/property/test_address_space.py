"""Where mappings go, beside a model that looks at every page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from guest_model.workload.address_space import TABLE_PAGES, AddressSpace

BEGIN = 3
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("map"), st.integers(1, 40), st.booleans()),
        st.tuples(st.just("unmap"), st.integers(0, 30), st.booleans()),
    ),
    max_size=40,
)


@given(CHANGES)
def test_a_mapping_lies_in_the_lowest_gap_that_holds_it(
    changes: list[tuple[str, int, bool]],
) -> None:
    """First fit, and what was unmapped is used again, however it was cut; also in a copy."""
    space = AddressSpace(BEGIN)
    mapped: dict[int, range] = {}
    for owner, (what, number, flag) in enumerate(changes):
        if what == "map":
            step = TABLE_PAGES if flag else 1
            at = -(-BEGIN // step) * step
            used = {page for pages in mapped.values() for page in pages}
            while any(page in used for page in range(at, at + number)):
                at += step
            assert space.map(owner, number, aligned=flag) == at
            mapped[owner] = range(at, at + number)
        elif mapped:
            gone = sorted(mapped)[number % len(mapped)]
            assert space.unmap(gone)[0] == len(mapped.pop(gone))
            space = space.copy() if flag else space
    assert all(space.has(owner) for owner in mapped)

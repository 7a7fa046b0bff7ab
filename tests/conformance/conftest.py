"""Every rule runs in every mode of the ring."""

from __future__ import annotations

import pytest

from tests.virtio_rig import MODES, PACKED_MODES, Mode


@pytest.fixture(params=MODES + PACKED_MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """A way in which a driver may use a ring."""
    chosen: Mode = request.param
    return chosen

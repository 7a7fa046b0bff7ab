"""Every rule runs in every mode of the ring."""

from __future__ import annotations

import pytest

from tests.virtio_rig import MODES, Mode


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """A way in which a driver may use a split ring."""
    chosen: Mode = request.param
    return chosen

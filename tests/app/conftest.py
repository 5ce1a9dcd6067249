"""A workshop with a small network that has learned nothing."""

from __future__ import annotations

import pytest

from prompt_mamba_arch.app import Limits, Workshop
from prompt_mamba_arch.restore import Restorer


@pytest.fixture
def make_workshop(net, tmp_path):
    """make_workshop(limits...) -> a workshop, which is closed at the end."""
    made = []

    def make(clock=None, **limits):
        more = {} if clock is None else {"clock": clock}
        workshop = Workshop(Restorer(net), limits=Limits(**limits), folder=tmp_path / "work", **more)
        made.append(workshop)
        return workshop

    yield make
    for workshop in made:
        workshop.close()


@pytest.fixture
def workshop(make_workshop):
    return make_workshop()

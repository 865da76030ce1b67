"""The table of borders holds together."""

import pytest

from carbonsched.feeds.entso_e_borders import BORDERS, CODES, borders_of
from carbonsched.feeds.entso_e_documents import ZONES, eic

MOST_BORDERS = 12
"""Each border is two requests for its flows, and up to six for the neighbour's mix."""


@pytest.mark.parametrize("zone", BORDERS)
def test_a_border_has_two_sides_and_both_have_codes(zone: str) -> None:
    neighbours = BORDERS[zone]
    assert list(neighbours) == sorted(set(neighbours) - {zone})
    assert 0 < len(neighbours) <= MOST_BORDERS
    assert all(zone in BORDERS.get(name, (zone,)) for name in neighbours)
    assert all(eic(CODES[name]) == CODES[name] for name in neighbours)
    assert borders_of(ZONES[zone]) == neighbours


def test_codes_are_of_one_zone_each() -> None:
    assert len(set(CODES.values())) == len(CODES)

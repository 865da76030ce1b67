"""Which PUE holds when: hours, months, zones and clock changes."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.errors import InputError
from carbonsched.pue import PueHours, pue_at, pue_changes

YEAR = datetime(2026, 1, 1, tzinfo=UTC)
OTHERWISE = (1.2, "annual report")
DAY = PueHours(hours=("08:00-20:00",), timezone="Europe/Berlin", pue=1.3, source="by day")
SUMMER = PueHours(months=(6, 7, 8), timezone="Europe/Berlin", pue=1.4, source="summer")
SUMMER_NIGHT = PueHours(
    hours=("22:00-06:00",), months=(7,), timezone="Europe/Berlin", pue=1.25, source="nights of July"
)


@pytest.mark.parametrize(
    ("at", "pue"),
    [
        ("2026-01-15T06:59:59Z", 1.2),
        ("2026-01-15T07:00:00Z", 1.3),  # winter: an hour behind UTC
        ("2026-05-15T06:00:00Z", 1.3),  # summer time: two
        ("2026-05-15T17:59:59Z", 1.3),
        ("2026-05-15T18:00:00Z", 1.2),
        ("2026-05-31T21:59:59Z", 1.2),
        ("2026-05-31T22:00:00Z", 1.4),  # the first of June in Berlin
        ("2026-06-15T12:00:00Z", 1.4),  # the first that fits, not the nearest
    ],
)
def test_it_holds_from_its_hour_on(at: str, pue: float) -> None:
    assert pue_at([SUMMER, DAY], OTHERWISE, datetime.fromisoformat(at))[0] == pue


def test_a_night_of_a_month_ends_with_the_month() -> None:
    inside, outside = datetime(2026, 7, 31, 21, 30, tzinfo=UTC), datetime(2026, 7, 31, 22, 30, tzinfo=UTC)
    assert (SUMMER_NIGHT.holds(inside), SUMMER_NIGHT.holds(outside)) == (True, False)


@given(
    rules=st.lists(st.sampled_from([DAY, SUMMER, SUMMER_NIGHT]), max_size=3),
    start=st.integers(0, 366 * 24 * 60),
    minutes=st.integers(1, 3 * 24 * 60),
)
def test_between_two_changes_it_is_one(rules: list[PueHours], start: int, minutes: int) -> None:
    first = YEAR + timedelta(minutes=start)
    last = first + timedelta(minutes=minutes)
    borders = sorted({first, last} | pue_changes(rules, first, last))
    for begin, end in pairwise(borders):
        middle = begin + (end - begin) / 2
        assert (
            len({pue_at(rules, OTHERWISE, at) for at in (begin, middle, end - timedelta(microseconds=1))})
            == 1
        )


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"hours": ["8-20"]}, "hours: '8-20' is not a span of hours"),
        ({"timezone": "Berlin"}, "timezone: 'Berlin' is no time zone"),
        ({"months": [13]}, "months"),
        ({"pue": 0.9}, "pue"),
        ({"pue": 11}, "pue"),
        ({"source": ""}, "source"),
    ],
)
def test_bad_ones_are_refused_by_their_key(told: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PueHours.parse({"pue": 1.3, "source": "BMS", **told})

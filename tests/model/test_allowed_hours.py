"""Hours of the day as stretches of UTC: spans over midnight, clock changes, what is no span."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.errors import InputError
from carbonsched.model.allowed_hours import span, stretches
from carbonsched.model.job import CarbonPart


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_night_is_one_stretch() -> None:
    found = stretches(["22:00-06:00"], "UTC", utc("2026-11-01T12:00"), utc("2026-11-03T12:00"))
    assert found == (
        (utc("2026-11-01T22:00"), utc("2026-11-02T06:00")),
        (utc("2026-11-02T22:00"), utc("2026-11-03T06:00")),
    )
    inside = stretches(["22:00-06:00"], "UTC", utc("2026-11-02T01:00"), utc("2026-11-02T02:00"))
    assert inside == (found[0],), "the one under way, from its true beginning"


def test_spans_that_meet_are_one() -> None:
    spans = ["00:00-04:00", "04:00-05:00", "22:00-24:00"]
    found = stretches(spans, "UTC", utc("2026-11-01T12:00"), utc("2026-11-02T12:00"))
    assert found == ((utc("2026-11-01T22:00"), utc("2026-11-02T05:00")),)


@pytest.mark.parametrize(("day", "hours"), [("2026-03-28", 7), ("2026-10-24", 9), ("2026-11-10", 8)])
def test_clock_changes_are_the_zones(day: str, hours: int) -> None:
    start = utc(f"{day}T12:00")
    ((a, b),) = stretches(["22:00-06:00"], "Europe/Berlin", start, start + timedelta(hours=20))
    assert b - a == timedelta(hours=hours)


@given(
    spans=st.lists(st.tuples(st.integers(0, 1439), st.integers(0, 1439)), min_size=1, max_size=4),
    at=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)),  # noqa: DTZ001
    name=st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe"]),
)
def test_ascending_disjoint_and_true_to_the_local_clock(
    spans: list[tuple[int, int]], at: datetime, name: str
) -> None:
    from zoneinfo import ZoneInfo

    texts = [f"{a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for a, b in spans if a != b]
    start = at.replace(tzinfo=UTC)
    end = start + timedelta(days=2)
    found = stretches(texts, name, start, end)
    assert all(a < b for a, b in found)
    assert all(x[1] < y[0] for x, y in pairwise(found))
    if not texts:
        assert found == ((start, end),)
        return
    offsets = {
        ZoneInfo(name).utcoffset((start + timedelta(days=d)).replace(tzinfo=None)) for d in range(-2, 4)
    }
    if len(offsets) > 1:
        return  # a clock change: told apart above
    for minutes in range(0, 2880, 97):
        now = start + timedelta(minutes=minutes)
        local = now.astimezone(ZoneInfo(name))
        clock = local.hour * 60 + local.minute + local.second / 60 + local.microsecond / 6e7
        inside = any(a <= clock < b if a < b else clock >= a or clock < b for a, b in spans if a != b)
        assert inside == any(a <= now < b for a, b in found)


@pytest.mark.parametrize("text", ["22-6", "25:00-26:00", "22:00", "10:00-10:00", "24:00-01:00", ""])
def test_what_is_no_span_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"22:00-06:00|leave it out"):
        span(text)


@pytest.mark.parametrize(
    ("carbon", "says"),
    [
        ({"budget_g": 1, "allowed_hours": ["22-6"]}, "allowed_hours: '22-6' is not a span of hours"),
        ({"budget_g": 1, "timezone": "Mars/Olympus"}, "timezone: 'Mars/Olympus' is no time zone"),
        ({"budget_g": 1, "pool": "lab"}, "give exactly one of budget_g"),
        ({"objective": "min-carbon", "rho_mean": 0.7}, 'add deadline = "36h"'),
        ({"objective": "min-carbon", "deadline": "1h"}, "add rho_mean = 0.7"),
        ({"objective": "min-carbon", "deadline": 9, "rho_mean": 0.7, "pool": "a"}, "drop pool"),
        ({"budget_g": 1, "rho_mean": 0.7}, 'add objective = "min-carbon"'),
        ({"objective": "min-carbon", "deadline": 9, "rho_mean": 0.7, "rho_max": 0.6}, "lies outside"),
        ({"budget_g": 1, "weight": 2.0}, "weight: is for jobs that share a pool"),
        ({"budget_rate_g_per_h": 0}, "budget_rate_g_per_h: must be above 0"),
    ],
)
def test_wrong_budgets_name_the_field_and_the_mend(carbon: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        CarbonPart.parse(carbon)

"""How figures read, each in a terminal, in a sentence and in a report."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched import text


def test_a_figure_has_significant_digits_and_no_exponent() -> None:
    assert [text.figure(x) for x in (None, 0.0, 0.0123, 4.567, 1234.0, 5e-7, -1e-13)] == [
        "-",
        "0",
        "0.0123",
        "4.57",
        "1230",
        "0.0000005",
        "0",
    ]
    assert text.figure(4.0, "g/kWh") == "4 g/kWh"
    assert text.about(4.0, estimated=True, unit="W") == "~4 W"
    assert text.about(None, estimated=True) == "-"


def test_grams_keep_every_whole_gram() -> None:
    assert [text.grams(g) for g in (None, 0.0, 0.04731, 9.8, 14.24, 624.0, 623.94, 1234.5, 98765.4)] == [
        "-",
        "0 g",
        "0.0473 g",
        "9.8 g",
        "14.2 g",
        "624 g",
        "623.9 g",
        "1234 g",
        "98765 g",
    ]
    assert text.grams(20.0, estimated=True) == "~20 g"


def test_energy_in_a_terminal_goes_from_joules_to_kilowatt_hours() -> None:
    assert [text.energy(j) for j in (None, 410.0, 1320.0, 2.5e6, 9e6)] == [
        "-",
        "410 J",
        "1.32 kJ",
        "2.5 MJ",
        "2.5 kWh",
    ]
    assert text.energy(410.0, estimated=True) == "~410 J"


@pytest.mark.parametrize(
    ("seconds", "short", "long"),
    [
        (40, "40s", "40 s"),
        (59.97, "1m 00s", "1 min"),
        (200, "3m 20s", "3 min 20 s"),
        (3599.7, "1h 00m", "1 h"),
        (7200, "2h 00m", "2 h"),
        (86_399, "23h 59m", "1 d"),
        (345_600, "4d 00h", "4 d"),
    ],
)
def test_durations_never_say_sixty_of_a_unit(seconds: float, short: str, long: str) -> None:
    assert (text.duration(seconds), text.long_duration(seconds)) == (short, long)


def test_times_are_utc_to_the_second() -> None:
    assert text.moment(datetime(2026, 11, 22, 10, 0, 0, 250_000, tzinfo=UTC)) == "2026-11-22 10:00:00Z"
    assert text.moment(None) == "-"


def test_segments_count_from_one() -> None:
    assert [text.nth(*pair) for pair in ((None, None), (None, 5), (2, 5), (2, None))] == [
        "-",
        "0/5",
        "3/5",
        "3/?",
    ]


def test_a_report_has_four_digits_in_the_unit_that_suits_the_size() -> None:
    assert [text.emissions(g) for g in (None, 0, 0.0042, 12.3456, 1234.5, 2.5e6)] == [
        "unknown",
        "0 g",
        "4.200 mg",
        "12.35 g",
        "1.234 kg",
        "2.500 t",
    ]
    assert [text.electricity(j) for j in (0, 3.6, 3600, 9e6)] == [
        "0 Wh",
        "1.000 mWh",
        "1.000 Wh",
        "2.500 kWh",
    ]
    assert [text.number(x) for x in (None, math.inf, math.nan, 0.0, 1234567.0, -2.5)] == [
        "unknown",
        "unknown",
        "unknown",
        "0",
        "1,234,567",
        "-2.500",
    ]
    seconds = (None, 0.25, 59, 60, 250, 3600, 4800, 86_400, 97_200, 2e6)
    assert [text.long_duration(s) for s in seconds] == [
        "unknown",
        "0.25 s",
        "59 s",
        "1 min",
        "4 min 10 s",
        "1 h",
        "1 h 20 min",
        "1 d",
        "1 d 3 h",
        "23 d 4 h",
    ]


@given(st.floats(min_value=1e-6, max_value=1e12))
def test_figure_is_near_and_has_no_exponent(value: float) -> None:
    shown = text.figure(value)
    assert "e" not in shown
    assert float(shown) == pytest.approx(value, rel=6e-3)


@given(st.floats(min_value=0, max_value=1e9))
def test_duration_loses_less_than_its_smallest_unit(seconds: float) -> None:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    parts = text.duration(seconds).split()
    total = sum(int(part[:-1]) * units[part[-1]] for part in parts)
    smallest = units[parts[-1][-1]]
    assert abs(total - seconds) <= smallest


def test_unknown_is_a_dash_and_never_0() -> None:
    for shown in (text.figure(None, "g"), text.energy(None), text.duration(None), text.moment(None)):
        assert shown == "-"
    assert text.about(None, True) == "-"
    assert text.nth(None, None) == "-"
    assert text.energy(0) == "0 J"
    assert text.energy(7.2e6, estimated=True) == "~2 kWh"


@pytest.mark.parametrize(
    ("value", "shown"), [(1e300, "1e+300"), (-4e-14, "0"), (1.2e-5, "0.000012"), (123456.0, "123456")]
)
def test_a_figure_has_neither_three_hundred_digits_nor_a_bare_point(value: float, shown: str) -> None:
    assert text.figure(value, digits=6) == shown


def test_one_of_a_thing_is_no_more() -> None:
    said = [text.several(n, "feed") for n in (0, 1, 2, None)]
    assert said == ["0 feeds", "1 feed", "2 feeds", "- feeds"]
    assert [text.several(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


def test_a_source_that_is_its_own_kind_is_said_once() -> None:
    assert text.source("static", "static, a constant: estimated") == "static, a constant: estimated"
    assert text.source("static", "fallback, a constant", None) == "static, fallback, a constant"
    assert text.source("neso", "forecast", "an hour old") == "neso, forecast, an hour old"
    assert text.source(None, "", "") == ""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manual_clock import ManualClock

from carbonsched.feeds.base import Site
from carbonsched.feeds.replay import ReplayFeed, ReplaySettings
from carbonsched.feeds.trace import Trace
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind, Reading

START = datetime(2022, 1, 1, tzinfo=UTC)
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOURS = 168
WEEK = Trace(
    tuple(START + timedelta(hours=h) for h in range(HOURS)),
    tuple(100.0 + h for h in range(HOURS)),
    tuple(200.0 + h for h in range(HOURS)),
    tuple(f"{h:064x}" for h in range(HOURS)),
)


def feed(
    clock: ManualClock, trace: Trace = WEEK, state: Path = Path("/nowhere"), **options: object
) -> ReplayFeed:
    keys = {"file": "-", "hour_s": 60.0, "anchor": T0, "label": "synthetic", **options}
    settings = ReplaySettings.parse({"provider": "replay", **keys})
    return ReplayFeed(trace, settings, Site(Zone(name="XX", basis=Basis.AVERAGE_DIRECT), clock, state))


def current(replay: ReplayFeed, clock: ManualClock) -> Reading:
    [found] = [r for r in replay.poll().readings if r.start <= clock.at < r.end]
    return found


def test_an_hour_of_the_grid_passes_in_hour_s_and_says_what_it_is() -> None:
    clock = ManualClock(T0 + timedelta(seconds=150))
    now = current(feed(clock), clock)
    assert (now.start, now.end) == (T0 + timedelta(seconds=120), T0 + timedelta(seconds=180))
    assert now.g_per_kwh == 102.0
    assert now.grid_start == START + timedelta(hours=2)
    source = now.source
    assert (source.kind, source.time_compression, source.note) == (Kind.ACTUAL, 60.0, "synthetic")
    assert source.body_sha256 == f"{2:064x}"


def test_the_past_is_there_at_once_and_only_what_is_new_later() -> None:
    clock = ManualClock(T0)
    replay = feed(clock)
    first = replay.poll().readings
    assert len(first) >= 168
    assert all(a.end == b.start for a, b in itertools.pairwise(first))
    clock.advance(60)
    assert [r.g_per_kwh for r in replay.poll().readings] == [100.0, 101.0, 102.0]


def test_the_trace_goes_round_without_a_seam() -> None:
    clock = ManualClock(T0 + timedelta(seconds=60 * HOURS - 30))
    last, following = feed(clock).poll().readings[-2:]
    assert (last.g_per_kwh, following.g_per_kwh) == (267.0, 100.0)
    assert last.end == following.start
    assert following.grid_start == START


def test_phase_and_polls_are_as_told() -> None:
    clock = ManualClock(T0)
    assert current(feed(clock, phase_h=30.5), clock).g_per_kwh == 130.0
    assert current(feed(clock, phase_h=-1), clock).g_per_kwh == 267.0
    assert feed(clock, hour_s=20).every_s == 5
    assert feed(clock, hour_s=3600, every=300).every_s == 300


def test_the_forecast_is_of_the_future_alone() -> None:
    clock = ManualClock(T0 + timedelta(seconds=90))
    forecast = feed(clock).poll().forecast
    assert forecast is not None
    assert forecast.issued_at == clock.at
    assert forecast.source.kind is Kind.FORECAST
    assert forecast.points[0].start == T0 + timedelta(seconds=120)
    assert forecast.points[0].g_per_kwh == 202.0
    assert len(forecast.points) == 48
    assert feed(clock, Trace(WEEK.times, WEEK.g_per_kwh, None, WEEK.sha256)).poll().forecast is None


def test_a_forecast_ends_where_the_column_is_empty() -> None:
    column = (*WEEK.forecast[:5], None, *WEEK.forecast[6:])  # type: ignore[index]
    forecast = feed(ManualClock(T0), Trace(WEEK.times, WEEK.g_per_kwh, column, WEEK.sha256)).poll().forecast
    assert forecast is not None
    assert [p.g_per_kwh for p in forecast.points] == [201.0, 202.0, 203.0, 204.0]


def test_a_very_fast_replay_stays_bounded() -> None:
    clock = ManualClock(T0)
    replay = feed(clock, hour_s=0.01)
    assert len(replay.poll().readings) <= 4001
    clock.advance(3600)
    assert len(replay.poll().readings) <= 4001


@settings(max_examples=30, deadline=None)
@given(
    offset=st.floats(-1e6, 1e6),
    hour_s=st.sampled_from([2.0, 7.0, 20.0, 3600.0]),
    phase_h=st.floats(-500, 500),
    gaps=st.lists(st.integers(300, 7200), min_size=1, max_size=9),
)
def test_the_current_reading_holds_now_and_carries_its_rows_value(
    offset: float, hour_s: float, phase_h: float, gaps: list[int]
) -> None:
    times = [START]
    for gap in gaps:
        times.append(times[-1] + timedelta(seconds=gap))
    trace = Trace(tuple(times), tuple(float(i) for i in range(len(times))), None, ("0" * 64,) * len(times))
    clock = ManualClock(T0 + timedelta(seconds=offset))
    readings = feed(clock, trace, hour_s=hour_s, phase_h=phase_h).poll().readings
    millisecond = timedelta(milliseconds=1)
    # a row's wall time is rounded to the millisecond, so at its very edge the one beside it may be the answer
    near = [r for r in readings if r.start - millisecond <= clock.at < r.end + millisecond]
    assert any(r.start <= clock.at < r.end for r in near)
    assert readings[-1].end > clock.at + timedelta(seconds=4.9)
    assert all(a.end == b.start for a, b in itertools.pairwise(readings))
    into = (phase_h * 3600 + (clock.at - T0).total_seconds() * 3600 / hour_s) % trace.span_s
    slack = 2e-3 * 3600 / hour_s
    for one in near:
        row = int(one.g_per_kwh)
        assert one.grid_start == trace.times[row]
        begins = (times[row] - START).total_seconds()
        ends = begins + (trace.step_s if row == len(times) - 1 else gaps[row])
        # at the seam the rest of the division may lie on either side
        assert any(
            begins - slack <= x <= ends + slack for x in (into, into + trace.span_s, into - trace.span_s)
        )


def test_a_restarted_daemon_with_the_same_anchor_is_in_the_same_phase() -> None:
    clock = ManualClock(T0 + timedelta(seconds=777))
    assert current(feed(clock), clock) == current(feed(clock), clock)


def test_a_replay_that_begins_anew_says_so_and_a_full_disk_stops_it_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock = ManualClock(T0 + timedelta(seconds=0.0004))
    first = feed(clock, state=tmp_path / "state", anchor=None)
    assert "the replay begins now, as there is no" in caplog.text
    clock.advance(500)
    caplog.clear()
    assert current(feed(clock, state=tmp_path / "state", anchor=None), clock) == current(first, clock)
    assert not caplog.records
    (tmp_path / ".replay-anchor.json.tmp").mkdir()  # it cannot be written
    assert current(feed(clock, state=tmp_path, anchor=None), clock).g_per_kwh == 100.0
    assert "begins anew at the next start: Is a directory" in caplog.text


@pytest.mark.parametrize("seconds", [0.0, 59.999, 60.0, 10_079.9])
def test_no_moment_is_without_a_reading(seconds: float) -> None:
    clock = ManualClock(T0 + timedelta(seconds=seconds))
    assert any(r.start <= clock.at < r.end for r in feed(clock).poll().readings)

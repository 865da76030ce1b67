"""The daemon's planner and guard, closed over traces."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.errors import InputError
from carbonsched.plan.simulation.request import SimRequest, TraceArrays
from carbonsched.plan.simulation.simulate import simulate
from carbonsched.units import grams

T0 = datetime(2022, 3, 1, tzinfo=UTC)


def make_trace(hours: int = 24 * 50, noise: float = 0.1, seed: int = 0, column: bool = False) -> TraceArrays:
    rng = np.random.default_rng(seed)
    t = np.arange(hours)
    shock = np.zeros(hours)
    for i in range(1, hours):
        shock[i] = 0.9 * shock[i - 1] + rng.normal(0, noise)
    g = 300 * np.exp(0.3 * np.sin(2 * np.pi * t / 24) + shock)
    forecast = (g * np.exp(rng.normal(0.1, 0.2, hours))).tolist() if column else None
    return TraceArrays([T0 + timedelta(hours=int(h)) for h in t], g.tolist(), forecast)


TRACE = make_trace()
START = T0 + timedelta(days=30)


def request(n: int = 24, share: float = 0.5, trace: TraceArrays = TRACE, **more) -> SimRequest:
    row = trace.row_at(START.timestamp())
    full = float(trace.g[row : row + n].sum())
    base = SimRequest(trace, START, n, 1.0, 1.0, 0.2, full * (0.52 + 0.48 * share), may_pause=False)
    return replace(base, **more)


def above_floor(result) -> float:
    return (result.gain - 0.4) / (result.oracle_gain - 0.4)


def test_the_oracle_on_fixed_slots_is_the_exact_optimum():
    result = simulate(request(policy="oracle"))
    row = TRACE.row_at(START.timestamp())
    g = TRACE.g[row : row + 24]
    left, gain = result.budget_g - g.sum() * 0.52 - 1e-3, 24 * 0.4
    for v in np.sort(g):
        rise = min(max(left, 0) / (0.8 * v), 0.6)
        left, gain = left - rise * 0.8 * v, gain + rise
    assert result.gain == pytest.approx(gain / 24, abs=1e-4)
    assert result.oracle_gap == pytest.approx(0.0, abs=1e-6)


def test_a_perfect_forecast_reaches_the_oracle():
    assert above_floor(simulate(request(policy="mpc", forecast="perfect"))) >= 0.995


def test_persistence_comes_near_and_constant_stays_behind():
    ours = simulate(request(72, policy="mpc", forecast="persistence"))
    flat = simulate(request(72, policy="constant", forecast="persistence"))
    assert above_floor(ours) > 0.9
    assert above_floor(ours) > above_floor(flat)
    assert ours.finished


def test_the_report_adds_up():
    result = simulate(request(policy="mpc"))
    assert [s.k for s in result.segments] == list(range(24))
    assert sum(s.spent_g for s in result.segments) == pytest.approx(result.spent_g)
    assert result.flops_ratio == pytest.approx(np.mean([s.rho for s in result.segments]))
    assert result.gain == pytest.approx(result.flops_ratio)
    assert result.finished_at == result.segments[-1].end == START + timedelta(hours=24)
    assert result.floor_g < result.spent_g <= result.budget_g < result.full_g
    dumped = result.dump()
    contract = {
        "policy",
        "spent_g",
        "budget_g",
        "flops_ratio",
        "gain",
        "oracle_gain",
        "finished_at",
        "segments",
    }
    assert contract <= set(dumped)
    assert {"k", "start", "end", "rho", "spent_g"} <= set(dumped["segments"][0])
    row = TRACE.row_at(START.timestamp())
    first = result.segments[0]
    assert first.spent_g == pytest.approx(grams(3.6e6 * (0.2 + 0.8 * first.rho), float(TRACE.g[row])))


def test_the_planner_never_looks_ahead():
    """What comes after a moment does not change what was decided before it."""
    spoilt = make_trace()
    row = spoilt.row_at(START.timestamp())
    spoilt.g[row + 12 :] *= 3
    asked = request(oracle=False)
    honest, other = simulate(asked), simulate(replace(asked, trace=spoilt))
    assert [s.rho for s in honest.segments[:12]] == [s.rho for s in other.segments[:12]]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    share=st.floats(-0.1, 1.2),
    policy=st.sampled_from(["mpc", "auto", "constant", "dual", "threshold", "full"]),
    pause=st.booleans(),
    spike=st.floats(0.5, 3.0),
    outlier=st.floats(0.7, 1.6),
    tick=st.sampled_from([1.0, 10.0, 60.0]),
)
def test_the_budget_holds_whatever_comes(seed, share, policy, pause, spike, outlier, tick):
    trace = make_trace(24 * 40, 0.2, seed)
    row = trace.row_at(START.timestamp())
    rng = np.random.default_rng(seed)
    # what comes is nothing like what was: a shift, and hours of three times the intensity
    trace.g[row + 1 :] *= spike
    trace.g[row + 1 + rng.integers(0, 30, 5)] *= 3
    np.minimum(trace.g, 3000.0, out=trace.g)
    result = simulate(
        request(
            8,
            share,
            trace,
            policy=policy,
            may_pause=pause,
            deadline_hours=14.0,
            power_factor=(1.0, outlier, 1.0),
            tick_s=tick,
            worst_g_per_kwh=3000.0,
            reserve_j=5000.0,
            oracle=False,
        )
    )
    assert result.spent_g <= result.budget_g
    assert all(0.4 - 1e-9 <= s.rho <= 1.0 + 1e-9 for s in result.segments)


def test_full_ends_with_the_budget_and_says_so():
    result = simulate(request(policy="full"))
    assert not result.finished
    assert result.finished_at is None
    assert result.segments[-1].done < 1
    assert result.spent_g <= result.budget_g
    assert result.spent_g > result.budget_g - 1.0
    assert "could pass the budget" in result.reason


def test_auto_takes_full_steps_and_fewer_of_them_where_tensors_bring_less_than_their_flops():
    flat = TraceArrays([T0 + timedelta(hours=h) for h in range(24 * 40)], [300.0] * 24 * 40)
    ours = simulate(request(policy="auto", forecast="perfect", trace=flat))
    full = simulate(request(policy="full", trace=flat))
    assert "no further segment in any setting" in ours.reason, "it ended early"
    assert sum(s.rho == 1.0 for s in ours.segments) > 0.7 * len(ours.segments)
    # what `full` does before its budget ends in mid-segment, to a segment
    assert ours.gain >= full.gain - 1 / 24
    assert ours.spent_g <= ours.budget_g


def test_pauses_and_a_deadline_save_grams_at_the_same_gain():
    asked = request(12, 0.4, may_pause=True, deadline_hours=24.0, time_follows_rho=False)
    ours = simulate(asked)
    assert ours.finished
    assert ours.missed_deadline_s == 0
    assert ours.waits >= 1
    assert ours.gain > simulate(replace(asked, may_pause=False)).gain
    assert ours.timing_effect_g > 0
    assert ours.at_once_effect_g is not None
    assert ours.at_once_effect_g > 0
    at_once = simulate(replace(asked, may_pause=False, policy="constant"))
    assert at_once.at_once_effect_g == pytest.approx(0.0, abs=1e-6 * at_once.spent_g), "it never waited"


def test_time_that_follows_rho_straddles_the_slots():
    result = simulate(request(6, may_pause=True, deadline_hours=12.0))
    for s in result.segments:
        hours = (s.end - s.start).total_seconds() / 3600
        assert hours == pytest.approx(0.2 + 0.8 * s.rho, abs=1e-3)


def test_a_budget_below_the_floor_stops_at_once():
    result = simulate(request(share=-0.7))
    assert result.segments == ()
    assert result.spent_g == 0
    assert result.reason.startswith("stop: budget below floor, needs")


def test_a_measured_frontier_is_gained_from():
    knee = tuple((0.4 + 0.1 * i, v) for i, v in enumerate((0.1, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0)))
    result = simulate(request(policy="mpc", forecast="perfect", frontier=knee))
    assert result.gain > result.flops_ratio
    assert result.gain >= 0.99 * result.oracle_gain


def test_the_forecast_column_is_used_and_its_absence_named():
    with_column = make_trace(column=True)
    assert simulate(request(trace=with_column, forecast="column")).finished
    with pytest.raises(InputError, match="no forecast_g_per_kwh column"):
        simulate(request(forecast="column"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"budget_g": -1.0}, "--budget-g"),
        ({"segments": 0}, "--segments"),
        ({"segment_kwh": float("nan")}, "--segment-kwh"),
        ({"fixed_share": 1.5}, "--fixed-share"),
        ({"rho_min": 0.9, "rho_max": 0.5}, "--rho-min"),
        ({"start": T0 - timedelta(days=1)}, "--start"),
        ({"segments": 100_000}, "--segment-hours: 100000 of 1 h are more than ten years"),
        ({"segments": 10_000}, "--start"),
    ],
)
def test_bad_input_is_named(change, named):
    with pytest.raises(InputError, match=named):
        simulate(replace(request(), **change))

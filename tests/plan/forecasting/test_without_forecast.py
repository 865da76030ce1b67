"""Without a forecast the price of the plans before tells clean hours from dirty ones."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from carbonsched.model.grid import Basis, Forecast, ForecastPoint, Kind, Reading, Source
from carbonsched.plan.forecasting.slots import has_forecast
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.units import J_PER_KWH

HOUR = 3600.0
LINEAR = ((0.0, 0.0), (1.0, 1.0))
KWH = EnergyModel(J_PER_KWH, 0.2, HOUR, 1.0, sigma=0.0)


def flat(now: float, n: int, budget_g: float, **more: object) -> Problem:
    """What the feeds give when they know only the present."""
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, now, now * (1.0 if i == 0 else 1.15)) for i in range(n + 1))
    segments = tuple(JobSegment(k, 1, LINEAR) for k in range(n))
    return replace(Problem(segments, slots, KWH, budget_g, 0.4, 1.0, has_forecast=False), **more)


def spend(values: np.ndarray, budget_g: float, has_forecast: bool) -> tuple[float, float]:
    """(mean ρ, grams) of a job that sees one hour at a time."""
    left, hint, rhos = budget_g, None, []
    for k, now in enumerate(values):
        plan = solve(
            flat(
                float(now),
                len(values) - k,
                left,
                price_hint=hint,
                has_forecast=has_forecast,
                done=k / len(values),
            )
        )
        if plan.action != "train":
            break
        rhos.append(plan.rho)
        left -= now * (0.2 + 0.8 * plan.rho)
        hint = plan.price or hint
    return sum(rhos) / len(values), budget_g - left


def test_the_reason_says_that_there_is_no_forecast():
    assert "no usable forecast" in solve(flat(300.0, 10, 2200.0)).reason
    assert "no usable forecast" not in solve(flat(300.0, 10, 2200.0, has_forecast=True)).reason


def test_a_cleaner_hour_than_the_price_was_made_for_is_used_and_a_dirtier_one_spared():
    price = solve(flat(300.0, 10, 2200.0)).price
    # ten hours at 200 for 1,800 g: an even share is 0.9 kWh, ρ = 0.875
    assert solve(flat(200.0, 10, 1800.0, price_hint=price)).rho > 0.97
    # ten hours at 400 for 2,600 g: 0.65 kWh, ρ = 0.5625
    assert solve(flat(400.0, 10, 2600.0, price_hint=price)).rho < 0.45


@pytest.mark.parametrize("seed", range(4))
def test_over_a_week_of_days_and_nights_it_gains_on_an_even_pace_inside_the_budget(seed):
    t = np.arange(7 * 24)
    values = 300 * np.exp(
        0.4 * np.sin(2 * np.pi * t / 24) + np.random.default_rng(seed).normal(0, 0.1, len(t))
    )
    budget = float(values.sum()) * 0.76
    rho, spent = spend(values, budget, has_forecast=False)
    assert spent <= budget
    # the best that an even energy an hour could do for these grams is 0.76 kWh, ρ = 0.7
    assert rho > 0.72


def test_a_forecast_or_a_day_of_the_past_is_something_known():
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    source = Source(provider="x", zone="X", basis=Basis.AVERAGE_DIRECT, kind=Kind.ACTUAL, fetched_at=now)
    hour = timedelta(hours=1)
    point = ForecastPoint(start=now, end=now + hour, g_per_kwh=1.0)
    old = Reading(start=now - 25 * hour, end=now - 24 * hour, g_per_kwh=1.0, source=source)
    assert not has_forecast(now, None, [])
    assert not has_forecast(now, None, [old.model_copy(update={"start": now - hour, "end": now})])
    assert has_forecast(now, None, [old])
    assert has_forecast(now, Forecast(issued_at=now, source=source, points=(point,)), [])

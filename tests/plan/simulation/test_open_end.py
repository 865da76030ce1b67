"""Jobs of open end over a trace: they end annealed, with their budget used and not passed, however wrong what is known."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from benchmarks.open_end import draw, summary
from carbonsched.plan.simulation.open_end import OpenJob, simulate_open_end
from carbonsched.plan.simulation.request import SimRequest, TraceArrays

START = datetime(2022, 1, 1, tzinfo=UTC)


def trace(days: int = 50) -> TraceArrays:
    """A day's wave, and weather that no past foretells."""
    random = np.random.default_rng(0)
    hours = np.arange(24 * days)
    weather = np.repeat(random.normal(0.0, 60.0, days), 24)
    values = 250 + 80 * np.sin(hours / 24 * 2 * np.pi) + weather
    return TraceArrays([START + timedelta(hours=int(h)) for h in hours], np.maximum(values, 20.0).tolist())


def test_drawn_jobs_end_annealed_inside_their_budgets() -> None:
    found = summary([simulate_open_end(request, job) for request, job in draw(trace(), 2, seed=3)])
    assert (found["jobs"], found["annealed"], found["passed"], found["late"]) == (2, 2, 0, 0)
    assert found["used_least"] is None or found["used_least"] >= 0.94


@pytest.mark.parametrize("believed", [0.5, 1.0, 2.0])
def test_how_wrong_the_first_guess_is_costs_no_budget(believed: float) -> None:
    request = SimRequest(
        trace(),
        START + timedelta(days=30),
        6,
        0.3,
        1.0,
        fixed_share=1.0,
        budget_g=150.0,
        rho_min=1.0,
        may_pause=False,
    )
    result = simulate_open_end(
        request, OpenJob(step_j=1500.0, step_s=5.0, length=60, tail_s=30.0, believed=believed)
    )
    assert result.annealed
    assert 0.97 <= result.used <= 1.0
    assert 0.15 <= result.cooldown_steps / result.steps <= 0.3


def test_a_budget_of_a_few_steps_is_stopped_in_time() -> None:
    request = SimRequest(
        trace(),
        START + timedelta(days=30),
        2,
        0.3,
        1.0,
        fixed_share=1.0,
        budget_g=2.0,
        rho_min=1.0,
        may_pause=False,
    )
    result = simulate_open_end(request, OpenJob(step_j=1500.0, step_s=5.0, tail_s=600.0))
    assert not result.annealed
    assert result.reason.startswith("stop: budget below floor")
    assert result.used <= 1.0

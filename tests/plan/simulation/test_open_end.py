"""Jobs of open end over a trace: they end annealed, with their budget used and not passed, however wrong what is known."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from benchmarks.open_end import draw, summary
from carbonsched.plan.problem import PlanPoint
from carbonsched.plan.simulation.open_end import OpenEndResult, OpenJob, simulate_open_end
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


def test_over_settings_it_ends_annealed_worth_no_less_than_the_best_of_them_and_stays_with_adapters() -> None:
    full = PlanPoint("full", 1.0, 1500.0, 5.0, 1.0)
    tokens = PlanPoint("tokens", 0.5, 750.0, 2.5, 0.6, share=0.25)
    lora = PlanPoint("lora", 0.71, 1065.0, 3.6, 0.95, whole_job=True)
    request = SimRequest(
        trace(),
        START + timedelta(days=30),
        6,
        0.3,
        1.0,
        fixed_share=1.0,
        budget_g=60.0,
        rho_min=1.0,
        may_pause=False,
    )

    def ran(*points: PlanPoint) -> OpenEndResult:
        job = OpenJob(step_j=1500.0, step_s=5.0, length=60, tail_s=30.0, points=points)
        return simulate_open_end(request, job)

    together, alone = ran(full, tokens, lora), [ran(point) for point in (full, lora)]
    for result in (together, *alone):
        assert result.annealed, result.reason
        assert 0.95 <= result.used <= 1.0
    assert together.worth >= 0.98 * max(result.worth for result in alone)
    assert together.settings == ("lora at rho 0.71",)
    mixed = ran(full, tokens, replace(lora, worth=0.5))
    assert mixed.annealed
    assert mixed.settings[0] == "tokens at 0.25 of the tokens"
    assert lora.name not in mixed.settings


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

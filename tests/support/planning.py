"""Inputs of a decision by hand: no supervisor, no ledger, no clock."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from carbonsched.model.protocol import Directive, Lease
from carbonsched.plan.objective import BudgetRate, Objective
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.supervisor.estimates.inputs import Funds, LeaseInputs, PlanningInputs
from carbonsched.supervisor.estimates.remaining_work import RemainingWork

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
FRONTIER = ((0.4, 0.1), (0.5, 0.5), (0.6, 0.7), (0.8, 0.9), (1.0, 1.0))
ENERGY = EnergyModel(
    joules_full=200.0,
    joules_c0=0.0,
    seconds_full=2.0,
    seconds_c0=0.0,
    sigma=0.05,
    watts_high=125.0,
    slope_known=True,
)
"""100 W for 2 s a step; at 400 g/kWh 10 steps take 0.22 g."""


def lease_inputs(funds: Funds, **fields: Any) -> LeaseInputs:
    base = LeaseInputs(
        now=NOW,
        energy=ENERGY,
        funds=funds,
        stop_j=500.0,
        worst_g_per_kwh=700.0,
        pue=1.0,
        tick_s=1.0,
        lease_s=300.0,
        longest_s=300.0,
    )
    return replace(base, **fields)


def planning_inputs(
    budget_g: float | None = 100.0,
    charged_g: float = 0.0,
    *,
    segments: int = 4,
    steps: int = 10,
    g_per_kwh: float = 400.0,
    rate: BudgetRate | None = None,
    last_seq: int = 0,
    lease: dict[str, Any] | None = None,
    **problem: Any,
) -> PlanningInputs:
    """A job of a few segments on a flat grid; `problem`: fields of the planner's Problem, `lease`: of the LeaseInputs."""
    funds = Funds(budget_g, charged_g)
    if rate is not None:
        funds = replace(funds, g_per_h=rate.g_per_h, most_g=rate.most_g)
    left = lease_inputs(funds, **(lease or {}))
    todo = tuple(JobSegment(k, steps, FRONTIER) for k in range(segments))
    asked = Problem(
        segments=todo,
        slots=(Slot(0.0, 86_400.0, g_per_kwh, g_per_kwh),),
        energy=ENERGY,
        budget_g=funds.left_g,
        rho_min=0.4,
        rho_max=1.0,
        worst_g_per_kwh=left.worst_g_per_kwh,
        reserve_g=left.reserve_g,
    )
    return PlanningInputs(
        remaining=RemainingWork(segments=todo, rho_floor=0.4, done=0.0, rho_due=None, known=True),
        problem=replace(asked, **problem),
        objective=Objective(budget_rate=rate),
        lease=left,
        last_seq=last_seq,
    )


def running(seq: int = 1, k: int = 0, rho: float = 1.0, held_s: float = 300.0, **fields: Any) -> Directive:
    """A directive to train that still holds for `held_s` seconds."""
    lease = Lease(valid_until=NOW + timedelta(seconds=held_s), max_steps=100)
    base = Directive(seq=seq, k=k, action="train", rho=rho, lease=lease, reason="as planned")
    return base.model_copy(update=fields)

"""How many steps a job of open end takes, and when it cools down."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.model.methods.efficiency import prior_efficiency
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, PlanPoint, Problem, Slot
from carbonsched.plan.step_dial import SHORTEST, OpenEnd, as_planned, judge, lay_out

FULL = ((1.0, 1.0),)
ENERGY = EnergyModel(3600.0, 1.0, 10.0, 1.0, tail_j=3600.0, tail_s=10.0, sigma=0.0, watts_high=360.0)
"""A step takes 1 Wh and 10 s: 0.3 g at 300 g/kWh."""
JOB = OpenEnd(done=0, k=0, here=50, length=50, share=0.2, recheck_s=10.0)


def problem(budget_g: float, **fields: object) -> Problem:
    slots = (Slot(0.0, 86_400.0, 300.0, 300.0),)
    asked = Problem((JobSegment(0, 50, FULL),), slots, ENERGY, budget_g, 1.0, 1.0, worst_g_per_kwh=300.0)
    return replace(asked, **fields)  # type: ignore[arg-type]


def at(done: int, **fields: object) -> OpenEnd:
    here = JOB.length - done % JOB.length
    return replace(JOB, done=done, k=done // JOB.length, here=here, **fields)  # type: ignore[arg-type]


def test_as_many_steps_as_the_grams_pay_for_the_last_fifth_of_them_cooling_down() -> None:
    laid, plan = lay_out(problem(0.3 * 201), JOB)  # 200 steps and the evaluation
    assert (plan.phase, plan.end, plan.cooldown_from) == ("stable", 199, 159)
    assert [s.steps for s in laid.segments] == [50, 50, 50, 49]
    assert laid.open_end
    assert "stable, then a cooldown from about step 159 to about step 199 (estimated)" in plan.reason


def test_it_cools_down_when_a_later_look_would_come_too_late() -> None:
    """Of 201 steps' grams n are spent: what is left pays for 200 − n steps and the evaluation."""
    begun = next(n for n in range(200) if judge(problem(0.3 * (201 - n)), at(n)).phase == "cooldown")
    plan = judge(problem(0.3 * (201 - begun)), at(begun))
    assert begun == 159
    assert (plan.cooldown_from, plan.end) == (159, 200), "all that is left is for it"


@pytest.mark.parametrize(
    ("left", "steps"),
    [(41.0, 40), (61.0, 60), (21.0, 20), (2.0, 3), (0.5, 3)],
    ids=["as begun", "longer", "shorter", "2% at least", "and then a stop"],
)
def test_a_cooldown_that_runs_follows_what_is_left(left: float, steps: int) -> None:
    plan = judge(problem(0.3 * left), at(160, cools_from=160))
    assert (plan.phase, plan.cooldown_from) == ("cooldown", 160)
    assert plan.cooldown_steps == pytest.approx(steps, abs=1)
    assert plan.cooldown_steps >= SHORTEST * 160


@pytest.mark.parametrize(("deadline_s", "end"), [(10.0 * 81, 80), (10.0 * 301, 200)])
def test_a_deadline_binds_like_grams(deadline_s: float, end: int) -> None:
    _, plan = lay_out(problem(0.3 * 201, deadline_s=deadline_s), JOB)
    assert plan.end == pytest.approx(end, abs=1)


def test_a_bound_is_no_aim_but_the_most() -> None:
    laid, plan = lay_out(problem(1e6), replace(JOB, most=120))
    assert (plan.end, plan.cooldown_from) == (120, 96)
    assert sum(s.steps for s in laid.segments) == 120
    plan = judge(problem(1e6), at(95, most=120))
    assert (plan.phase, plan.cooldown_from, plan.end) == ("cooldown", 96, 120), "said before it begins"


def test_a_step_that_nobody_has_seen_begins_no_cooldown() -> None:
    """By the guess the grams pay for two steps and the evaluation, by a quarter of it for eleven."""
    asked = problem(0.3 * 3.9)
    assert judge(asked, at(0)).phase == "cooldown"
    plan = judge(asked, at(0, guess=4.0))
    assert (plan.phase, plan.end > 2) == ("stable", True)
    nothing = judge(problem(0.3 * 1.3), at(0, guess=4.0))
    assert nothing.phase == "cooldown", "even so no further look is paid for"


def test_what_may_be_wrong_is_kept_back() -> None:
    sure = judge(problem(0.3 * 201), at(150))
    doubtful = judge(problem(0.3 * 51, energy=replace(ENERGY, sigma=0.2)), at(150))
    dirty = judge(problem(0.3 * 51, slots=(Slot(0.0, 86_400.0, 300.0, 420.0),)), at(150))
    assert sure.phase == "stable"
    assert doubtful.phase == dirty.phase == "cooldown"


def test_cleaner_hours_pay_for_more_steps_where_it_may_wait() -> None:
    slots = (Slot(0.0, 7200.0, 300.0, 300.0), Slot(7200.0, 86_400.0, 100.0, 100.0))
    now, later = (
        lay_out(problem(0.3 * 201, slots=slots, may_pause=may_pause, deadline_s=20_000.0), JOB)[1]
        for may_pause in (False, True)
    )
    assert now.end == 199
    assert later.end == pytest.approx(600, rel=0.02)


def test_it_trains_in_allowed_hours_alone() -> None:
    asked = problem(1e6, deadline_s=7200.0, allowed=((0.0, 1000.0), (6000.0, 86_400.0)))
    _, plan = lay_out(asked, JOB)
    assert plan.end == pytest.approx((1000 + 1200) / 10 - 1, abs=1)


def test_a_trainer_that_may_be_further_than_it_says_cools_down_from_a_step_it_has_not_taken() -> None:
    energy = replace(ENERGY, seconds_full=0.1)
    plan = judge(problem(0.3 * 61, energy=energy), at(170, lag_s=2.0))
    assert (plan.phase, plan.cooldown_from) == ("cooldown", 190)


@given(
    left=st.floats(0.01, 1e4),
    done=st.integers(0, 10_000),
    share=st.floats(0.02, 0.9),
    sigma=st.floats(0.0, 0.5),
    most=st.none() | st.integers(10_001, 20_000),
    cooling=st.booleans(),
)
def test_it_always_ends_behind_where_it_is_and_never_behind_its_bound(
    left: float, done: int, share: float, sigma: float, most: int | None, *, cooling: bool
) -> None:
    cools_from = done // 2 if cooling else None
    job = replace(at(done), share=share, most=most, cools_from=cools_from)
    laid, plan = lay_out(problem(left, energy=replace(ENERGY, sigma=sigma)), job)
    assert plan.end > done
    assert plan.cooldown_steps >= 1
    assert most is None or plan.end <= most
    assert sum(s.steps for s in laid.segments) == plan.end - done
    assert min(s.steps for s in laid.segments) >= 1


LINE = ((0.4, 0.4), (1.0, 1.0))
SLOPED = replace(ENERGY, joules_c0=0.0, seconds_c0=0.0)
FULL_STEP_G = 0.3


def point(method: str, rho: float, share: float | None = None) -> PlanPoint:
    """At what its FLOPs take and its prior says that it is worth."""
    worth = prior_efficiency(method, rho, share=share).median
    return PlanPoint(method, rho, 3600.0 * rho, 10.0 * rho, worth, share=share)


WHOLE = point("full", 1.0)
TENSORS = tuple(point("greentrainer", rho) for rho in (0.5, 0.6, 0.7, 0.8))
TOKENS = point("tokens", 0.5, 0.25)


def auto(budget_g: float, points: tuple[PlanPoint, ...], **fields: object) -> Problem:
    segment = JobSegment(0, 50, LINE)
    return problem(budget_g, segments=(segment,), energy=SLOPED, rho_min=0.4, points=points, **fields)


def play(budget_g: float, points: tuple[PlanPoint, ...], most: int | None) -> tuple[list[str], int, float]:
    """A job to its end, told before each segment and looked at before each step: the setting of each step, the steps of its
    cooldown, the grams left."""
    left, done, cools, end, ran = budget_g, 0, None, 10**9, []
    now = WHOLE
    while done < end:
        state = at(done, most=most, cools_from=cools)
        if done % JOB.length == 0:
            laid, steps = lay_out(auto(left, points), state)
            plan = solve(laid)
            assert plan.action == "train", plan.reason
            assert plan.point is not None
            now, steps = plan.point, as_planned(steps, state, laid, plan)
        else:
            steps = judge(auto(left, points), replace(state, rho=now.rho))
        if steps.phase == "cooldown":
            cools, end = steps.cooldown_from, steps.end
        assert steps.end > done
        done, left = done + 1, left - now.joules / 3.6e6 * 300
        left -= SLOPED.overhead_j / 3.6e6 * 300 if done % JOB.length == 0 else 0.0
        ran.append(now.method)
    assert cools is not None
    return ran, end - cools, left


@pytest.mark.parametrize(
    ("points", "setting", "steps"),
    [((WHOLE, *TENSORS), "full", 160), ((WHOLE, *TENSORS, TOKENS), "tokens", 320)],
    ids=["full with fewer steps beats tensors", "tokens bring more for the grams"],
)
@pytest.mark.parametrize("most", [400, None])
def test_auto_takes_fewer_steps_where_these_bring_more_and_ends_annealed(
    points: tuple[PlanPoint, ...], setting: str, steps: int, most: int | None
) -> None:
    """40% of what 400 full steps take, 1 Wh each."""
    ran, cooldown, left = play(0.4 * 400 * FULL_STEP_G, points, most)
    assert set(ran) == {setting}
    assert len(ran) == pytest.approx(steps, rel=0.02)
    assert cooldown / len(ran) == pytest.approx(0.2, abs=0.02)
    assert 1.0 - 1e-6 <= left / FULL_STEP_G <= 4.0, "the last evaluation, and what is lost by rounding"


def test_all_steps_are_full_where_the_grams_do_not_bind() -> None:
    laid, steps = lay_out(auto(1e4, (WHOLE, *TENSORS, TOKENS)), replace(JOB, most=120))
    plan = solve(laid)
    assert plan.point == WHOLE
    assert as_planned(steps, replace(JOB, most=120), laid, plan).end == 120


points = st.builds(point, st.sampled_from(["full", "tokens", "greentrainer", "lora"]), st.floats(0.4, 1.0))


@settings(max_examples=12, deadline=None)
@given(
    grams=st.floats(0.0, 60.0),
    chosen=st.lists(points, min_size=1, max_size=4, unique_by=lambda p: p.rho),
    most=st.none() | st.integers(1, 400),
    levels=st.lists(st.floats(30, 700), min_size=2, max_size=5),
)
def test_no_setting_alone_brings_more_steps_than_the_plan_laid_out(
    grams: float, chosen: list[PlanPoint], most: int | None, levels: list[float]
) -> None:
    slots = tuple(Slot(i * 900.0, (i + 1) * 900.0, g, g) for i, g in enumerate(levels))
    job = replace(JOB, most=most)

    def brought(offered: tuple[PlanPoint, ...]) -> float:
        asked = auto(grams, offered, slots=slots, deadline_s=900.0 * len(levels))
        laid, steps = lay_out(asked, job)
        if steps.phase == "cooldown":
            return 0.0
        plan = solve(laid)
        assert plan.spend_g <= grams * (1 + 1e-6) or len(plan.segments) == 1
        sizes = {s.k: s.steps for s in laid.segments}
        return sum(sizes[p.k] * p.point.worth for p in plan.segments if p.point is not None)

    together, alone = brought(tuple(chosen)), [brought((p,)) for p in chosen]
    assert together >= max(alone) * 0.999 - 1e-6


def test_auto_waits_for_cleaner_hours_that_pay_for_more_steps() -> None:
    slots = (Slot(0.0, 7200.0, 300.0, 300.0), Slot(7200.0, 86_400.0, 100.0, 100.0))
    asked = auto(0.3 * 201, (WHOLE, *TENSORS), slots=slots, may_pause=True, deadline_s=20_000.0)
    laid, steps = lay_out(asked, JOB)
    plan = solve(laid)
    assert plan.action == "wait"
    assert as_planned(steps, JOB, laid, plan).end == pytest.approx(600, rel=0.05)
    assert "then auto: full" in plan.reason


@pytest.mark.parametrize(
    ("frontier", "most", "steps"),
    [
        (((0.68, 1.0),), None, 200 / 0.68),
        (((0.68, 1.0),), 1000, 200 / 0.68),
        (((0.5, 0.6), (1.0, 1.0)), None, 200),
        (((0.5, 0.6), (1.0, 1.0)), 300, 300),
        (((0.5, 0.6), (1.0, 1.0)), 1000, 400),
    ],
    ids=["lora", "lora, bounded", "tokens and greentrainer", "in part", "at the floor"],
)
def test_a_method_of_one_setting_is_laid_out_at_what_its_steps_take(
    frontier: tuple[tuple[float, float], ...], most: int | None, steps: float
) -> None:
    segment = JobSegment(0, 50, frontier)
    asked = problem(0.3 * 201, segments=(segment,), energy=SLOPED, rho_min=frontier[0][0])
    job = replace(JOB, most=most)
    laid, plan = lay_out(asked, job)
    assert plan.phase == "stable"
    assert plan.end == pytest.approx(steps, rel=0.01)
    solved = solve(laid)
    assert solved.action == "train"
    assert solved.spend_g <= asked.budget_g
    assert solved.spend_g >= 0.98 * asked.budget_g
    if len({p.rho for p in solved.segments}) == 1:
        spent = 0.3 * (solved.rho or 1.0)
        begun = next(
            n
            for n in range(1000)
            if judge(
                replace(asked, budget_g=asked.budget_g - spent * n), at(n, most=most, rho=solved.rho)
            ).phase
            == "cooldown"
        )
        assert begun == pytest.approx(0.8 * steps, rel=0.03)

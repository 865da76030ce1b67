"""The learning rate of a job whose end is decided while it runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.job.budget_schedule import BudgetSchedule
from trainer.job.directives import Granted
from trainer.job.segment import Schedule

STABLE = Granted(rho=1.0, seq=1, phase="stable")


def cooldown(steps: int, begin: int | None = None) -> Granted:
    return Granted(rho=1.0, seq=1, phase="cooldown", cooldown_steps=steps, cooldown_from=begin)


def open_schedule(bound: int | None = None) -> Schedule:
    return Schedule.of(80, 4, 1, None, bound, 10, is_open=True)


def test_a_bound_alone_makes_warm_up_stable_and_cooldown_of_the_asked_share() -> None:
    schedule = BudgetSchedule.of(10, 0.2, open_schedule(100))
    assert [schedule.factor(step) for step in (0, 5, 10, 79)] == [0, 0.5, 1, 1]
    assert schedule.factor(80) == pytest.approx(1 - (1 / 21) ** 0.5), "its first step is below the full rate"
    assert schedule.factor(85) == pytest.approx(1 - (6 / 21) ** 0.5)
    assert schedule.factor(99) == pytest.approx(1 - (20 / 21) ** 0.5), "and its last one still trains"
    assert [schedule.is_over(step) for step in (99, 100)] == [False, True]
    assert schedule.narrow(open_schedule(100), 0).most_steps == 100


def test_a_cooldown_that_has_begun_is_not_undone_and_its_end_moves_without_a_jump() -> None:
    schedule = BudgetSchedule.of(0, 0.2, open_schedule())
    assert not schedule.obey(STABLE, 40)
    assert schedule.obey(cooldown(20), 40)
    before = [schedule.factor(step) for step in range(40, 50)]
    assert not schedule.obey(cooldown(20), 45), "the same again moves nothing"
    assert not schedule.obey(STABLE, 45)
    assert schedule.obey(cooldown(14, begin=40), 50)
    done = 10 / 21  # of the cooldown, before step 50
    assert before[-1] == pytest.approx(1 - done**0.5)
    assert schedule.factor(50) == pytest.approx(1 - (done + (1 - done) / 5) ** 0.5), (
        "goes on from where it was"
    )
    assert schedule.factor(52) == pytest.approx(1 - (done + (1 - done) * 3 / 5) ** 0.5)
    assert schedule.steps == 54
    assert schedule.obey(cooldown(30), 52)
    done += (1 - done) * 2 / 5
    assert schedule.factor(52) == pytest.approx(1 - (done + (1 - done) / 19) ** 0.5)
    assert schedule.steps == 70


@pytest.mark.parametrize(("told", "steps"), [(cooldown(10**6), 100), (cooldown(1, begin=2), 51)])
def test_the_end_lies_neither_behind_the_bound_nor_before_a_step_that_was_granted(
    told: Granted, steps: int
) -> None:
    schedule = BudgetSchedule.of(0, 0.2, open_schedule(100))
    assert schedule.obey(told, 50)
    assert schedule.steps == steps


def test_what_a_checkpoint_keeps_goes_on_alike() -> None:
    schedule = BudgetSchedule.of(3, 0.2, open_schedule(500))
    schedule.obey(cooldown(20), 40)
    schedule.obey(cooldown(13), 47)
    again = BudgetSchedule.of(3, 0.2, open_schedule(500))
    again.load(schedule.dump())
    assert again == schedule
    again.load(None)
    assert again == schedule


def test_segments_keep_their_numbers_however_the_end_moves() -> None:
    schedule = BudgetSchedule.of(0, 0.2, open_schedule())
    whole = open_schedule()
    assert schedule.narrow(whole, 0).is_open
    schedule.obey(cooldown(3, begin=19), 19)
    assert [schedule.narrow(whole, 19).bounds(step) for step in (19, 20, 21)] == [
        (1, 10, 20),
        (2, 20, 22),
        (2, 20, 22),
    ]


def test_a_longer_cooldown_that_is_told_after_its_last_step_comes_too_late() -> None:
    """Its rate is at 0 by then: a further step would take grams and train nothing."""
    schedule = BudgetSchedule.of(0, 0.2, open_schedule())
    assert schedule.obey(cooldown(2, begin=5), 5)
    assert not schedule.obey(cooldown(3, begin=5), 7)
    assert schedule.is_over(7)
    again = BudgetSchedule.of(0, 0.2, open_schedule())
    assert again.obey(cooldown(2, begin=5), 5)
    assert again.obey(cooldown(3, begin=5), 6)
    assert [again.is_over(step) for step in (7, 8)] == [False, True]
    assert again.factor(7) > 0


@given(
    stable=st.integers(1, 50),
    told=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 40)), min_size=1, max_size=6),
)
def test_the_rate_falls_with_every_step_of_a_cooldown_however_its_end_is_moved(
    stable: int, told: list[tuple[int, int]]
) -> None:
    """told: after so many steps, a cooldown of so many. One of a single step anneals, too."""
    schedule, step, rates = BudgetSchedule.of(0, 0.2, open_schedule()), stable, []
    for after, steps in told:
        schedule.obey(cooldown(steps, begin=stable), step)
        for _ in range(after):
            if not schedule.is_over(step):
                rates.append(schedule.factor(step))
                step += 1
    assert all(0 < rate < 1 for rate in rates)
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == len(rates)

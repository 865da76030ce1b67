"""The clock of a segment: trials that can be paid for, the fewest joules that keep the deadline, no flapping."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.plan.clocks import TRIALS, Seen, Work, choose, levels

A100 = tuple(range(1410, 195, -15))
LEVELS = levels(A100)


def joules(mhz: int, fixed: float, top: int = 1410) -> float:
    """Per step, over those at the top: fixed power over longer time, and power that falls by the cube of the clock."""
    x = mhz / top
    return (fixed + (1 - fixed) * x**3) / x


def work(**change: object) -> Work:
    return Work(
        **(
            {"segment_g": 2.0, "budget_g": 40.0, "rest_s": 3600.0, "left_s": None, "max_slowdown": 2.0}
            | change
        )
    )  # type: ignore[arg-type]


def run(fixed: float, segments: int = 20, start: Work | None = None) -> tuple[list[int | None], float]:
    """(clocks of a job's segments, grams that trials lost) on a board of that fixed share of power."""
    ahead = start or work()
    seen: dict[int, Seen] = {}
    clocks: list[int | None] = []
    now, measured = None, False
    for _ in range(segments):
        clock = choose(A100, seen, now, ahead, measured=measured)
        clocks.append(clock.mhz)
        measured = measured or clock.mhz is None
        if clock.mhz is not None:
            took = joules(clock.mhz, fixed)
            assert took <= clock.joules + 1e-9  # what was reckoned with holds
            excess = max(took - 1.0, 0.0) * ahead.segment_g
            seen.setdefault(clock.mhz, Seen(took, 1410 / clock.mhz, excess))
        now = clock.mhz
    return clocks, sum(one.excess_g for one in seen.values())


def test_a_few_supported_levels() -> None:
    assert LEVELS == (1275, 1125, 990, 840)
    assert set(LEVELS) < set(A100)
    assert levels(()) == levels((1410,)) == ()


@pytest.mark.parametrize(("fixed", "best"), [(0.4, 990), (0.25, 840), (0.9, None), (0.6, 1275)])
def test_it_ends_at_the_fewest_joules_of_the_levels(fixed: float, best: int | None) -> None:
    clocks, _ = run(fixed)
    least = min((1410, *LEVELS), key=lambda mhz: joules(mhz, fixed))
    assert least == (best or 1410)
    assert clocks[0] is None
    end = joules(clocks[-1] or 1410, fixed)
    assert end <= joules(least, fixed) * 1.03
    assert len(set(clocks[8:])) == 1


@settings(deadline=None, max_examples=40)
@given(st.floats(0.05, 0.99), st.floats(0.01, 100.0), st.floats(1.0, 1000.0))
def test_trials_never_lose_more_than_their_share_of_the_budget(
    fixed: float, segment_g: float, budget_g: float
) -> None:
    _, lost = run(fixed, start=work(segment_g=segment_g, budget_g=budget_g))
    assert lost <= TRIALS * budget_g * (1 + 1e-9)


def test_a_deadline_and_the_jobs_own_bound_are_kept() -> None:
    clocks, _ = run(0.25, start=work(left_s=4200.0))  # 4200 · 0.95 / 3600 = 1.108 times as long
    assert {mhz for mhz in clocks if mhz} <= {1275}
    clocks, _ = run(0.25, start=work(max_slowdown=1.05))
    assert set(clocks) == {None}
    clocks, _ = run(0.25, start=work(segments=1))
    assert set(clocks) == {None}


def test_a_level_must_win_clearly_to_be_changed_to() -> None:
    seen = {1275: Seen(0.9, 1.1, 0.0), 1125: Seen(0.89, 1.25, 0.0), 990: Seen(0.95, 1.4, 0.0)}
    assert choose(A100, seen, 1275, work(), measured=True).mhz == 1275
    assert choose(A100, seen, 1125, work(), measured=True).mhz == 1125
    assert choose(A100, seen, 990, work(), measured=True).mhz == 1125
    assert choose(A100, seen, None, work(), measured=True).mhz == 1125
    # one that no longer keeps the deadline is left, however good it was
    assert choose(A100, seen, 1125, work(left_s=4500.0), measured=True).mhz == 1275

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.model.energy import Account, EnergyDelta, EnergyMethod
from carbonsched.power.attribution import Cut, share_by, split
from carbonsched.power.cpu_share import CpuUse, how, idle_part, parts_by_cpu

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECONDS = st.floats(0, 1e4)


def host(energy_mj: int | None, seconds: float = 1.0) -> EnergyDelta:
    return EnergyDelta(
        device="host",
        start=T0,
        end=T0 + timedelta(seconds=seconds),
        energy_mj=energy_mj,
        power_w=None if energy_mj is None else energy_mj / 1000 / seconds,
        method=EnergyMethod.ESTIMATED,
        counter_epoch="boot",
    )


@given(
    energy_mj=st.integers(0, 10**9),
    edges=st.lists(st.floats(0.001, 9.999), max_size=4, unique=True).map(sorted),
    jobs=st.lists(SECONDS, min_size=1, max_size=6),
    others=SECONDS,
    idle_w=st.floats(0, 1e6),
    rule=st.sampled_from(["jobs", "box"]),
)
def test_every_millijoule_is_somebodys_and_nobodys_twice(
    energy_mj: int, edges: list[float], jobs: list[float], others: float, idle_w: float, rule: str
) -> None:
    """Cut in time, and each piece shared by CPU time: the whole is the sum of its parts."""
    times = [T0 + timedelta(seconds=s) for s in (0, *edges, 10)]
    cuts = [Cut(a, b, Account.JOB, "j", 0, None) for a, b in itertools.pairwise(times)]
    given_out = 0
    for _, piece in split(host(energy_mj, 10.0), cuts):
        idle = idle_part(piece, idle_w)
        parts = parts_by_cpu(jobs, others, idle, rule)  # type: ignore[arg-type]
        assert sum(parts) == pytest.approx(1)
        shares = share_by(piece, parts, how(len(jobs), rule))  # type: ignore[arg-type]
        energies = [each.energy_mj or 0 for each in shares]
        assert min(energies) >= 0
        assert len(energies) == len(jobs) + 1
        given_out += sum(energies)
    assert given_out == energy_mj


@given(jobs=st.lists(SECONDS, min_size=2, max_size=6), others=SECONDS, idle=st.floats(0, 1))
def test_the_active_part_goes_by_cpu_time_and_the_idle_part_by_the_rule(
    jobs: list[float], others: float, idle: float
) -> None:
    paid, free = parts_by_cpu(jobs, others, idle, "jobs"), parts_by_cpu(jobs, others, idle, "box")
    busy = sum(jobs) + others
    for n, used in enumerate(jobs):
        active = (1 - idle) * used / busy if busy else 0.0
        assert free[n] == pytest.approx(active)
        assert paid[n] == pytest.approx(active + idle / len(jobs))
    assert paid[-1] == pytest.approx((1 - idle) * (others / busy if busy else 1), abs=1e-9)
    assert free[-1] == pytest.approx(paid[-1] + idle, abs=1e-9)


def test_a_job_alone_on_a_calm_box_pays_all_as_it_always_did() -> None:
    assert parts_by_cpu([2.0], 0.0, 0.3, "jobs") == [pytest.approx(1.0), pytest.approx(0.0)]


@pytest.mark.parametrize(
    ("energy_mj", "idle_w", "part"),
    [(100_000, 25.0, 0.25), (100_000, 200.0, 1.0), (100_000, -1.0, 0.0), (0, 5.0, 1.0), (None, 5.0, 1.0)],
)
def test_the_idle_part_is_at_most_all(energy_mj: int | None, idle_w: float, part: float) -> None:
    assert idle_part(host(energy_mj), idle_w) == part


def test_cpu_time_of_one_tick_says_nothing_of_a_minute() -> None:
    use = CpuUse(1.0, {}, 0.0)
    assert [use.covers(seconds) for seconds in (0.0, 1.0, 2.0, 60.0)] == [False, True, True, False]


def test_rows_say_how_they_were_shared() -> None:
    assert how(1, "jobs") == "split by CPU time, the idle share shared by 1 job"
    assert how(2, "jobs").endswith("2 jobs")
    assert how(2, "box") == "split by CPU time, the idle share is the box's"

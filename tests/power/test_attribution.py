import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.model.energy import Account, EnergyDelta, EnergyMethod
from carbonsched.power.attribution import Cut, share, split

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def delta(energy_mj: int | None = 10_000, seconds: float = 10.0, counter: int | None = 500) -> EnergyDelta:
    known = energy_mj is not None and counter is not None
    return EnergyDelta(
        device="GPU-1",
        start=T0,
        end=T0 + timedelta(seconds=seconds),
        energy_mj=energy_mj,
        power_w=None if energy_mj is None else energy_mj / 1000 / seconds,
        method=EnergyMethod.UNAVAILABLE if energy_mj is None else EnergyMethod.COUNTER,
        counter_epoch="b:0",
        counter_start_mj=counter if known else None,
        counter_end_mj=counter + energy_mj if known else None,
        reason=None if energy_mj is not None else "the GPU is lost",
    )


def cuts(*seconds: float, account: Account = Account.JOB) -> list[Cut]:
    edges = [T0 + timedelta(seconds=s) for s in seconds]
    return [Cut(a, b, account, f"j{i}", i, 0.5) for i, (a, b) in enumerate(itertools.pairwise(edges))]


def test_one_cut_leaves_the_measured_delta_as_it_is() -> None:
    whole = delta()
    [(cut, piece)] = split(whole, cuts(0, 10))
    assert cut.job_id == "j0"
    assert piece == whole


def test_energy_goes_by_time_and_the_pieces_say_that_they_are_estimated() -> None:
    pieces = [piece for _, piece in split(delta(), cuts(0, 2.5, 10))]
    assert [p.energy_mj for p in pieces] == [2500, 7500]
    assert [p.method for p in pieces] == [EnergyMethod.ESTIMATED] * 2
    assert [(p.counter_start_mj, p.counter_end_mj) for p in pieces] == [(500, 3000), (3000, 10_500)]
    assert pieces[0].end == pieces[1].start == T0 + timedelta(seconds=2.5)
    assert pieces[0].power_w == 1.0
    assert pieces[0].reason == "split by time"


def test_where_power_was_read_in_between_energy_goes_by_that() -> None:
    """A job that ends just before a burst is not charged for it."""
    profile = ((T0, 0.0), (T0 + timedelta(seconds=9), 1.0), (T0 + timedelta(seconds=10), 10.0))
    whole = delta().model_copy(update={"profile": profile})
    pieces = [piece for _, piece in split(whole, cuts(0, 4.5, 9, 9.5, 10))]
    assert [p.energy_mj for p in pieces] == [500, 500, 4500, 4500]
    assert [p.power_w for p in pieces] == pytest.approx([1 / 9, 1 / 9, 9.0, 9.0])
    assert {(p.method, p.reason, p.profile) for p in pieces} == {
        (EnergyMethod.ESTIMATED, "split by power readings", ())
    }
    assert split(whole, cuts(0, 10))[0][1] == delta()


def test_power_readings_of_nothing_split_by_time() -> None:
    profile = ((T0, 0.0), (T0 + timedelta(seconds=10), 0.0))
    pieces = [piece for _, piece in split(delta().model_copy(update={"profile": profile}), cuts(0, 2.5, 10))]
    assert [(p.energy_mj, p.reason) for p in pieces] == [(2500, "split by time"), (7500, "split by time")]


@given(
    energy=st.integers(0, 10**9),
    joules=st.lists(st.floats(0, 1e4), min_size=1, max_size=12),
    edges=st.lists(st.integers(0, 10**7), max_size=6),
)
def test_a_split_by_power_readings_loses_no_millijoule(
    energy: int, joules: list[float], edges: list[int]
) -> None:
    step = timedelta(seconds=10) / len(joules)
    sums = list(itertools.accumulate(joules, initial=0.0))
    profile = tuple((T0 + step * n, so_far) for n, so_far in enumerate(sums))
    profile = (*profile[:-1], (T0 + timedelta(seconds=10), sums[-1]))
    whole = delta(energy).model_copy(update={"profile": profile})
    times = [0.0, *(edge / 1e6 for edge in sorted(edges)), 10.0]
    pieces = [piece.energy_mj for _, piece in split(whole, cuts(*times))]
    assert sum(mj or 0 for mj in pieces) == energy
    assert all(mj is not None and mj >= 0 for mj in pieces)


def test_unknown_energy_stays_unknown_in_every_piece() -> None:
    pieces = [piece for _, piece in split(delta(None), cuts(0, 4, 10))]
    assert [p.energy_mj for p in pieces] == [None, None]
    assert {p.method for p in pieces} == {EnergyMethod.UNAVAILABLE}
    assert all("the GPU is lost" in (p.reason or "") for p in pieces)


@pytest.mark.parametrize("edges", [(0, 9), (1, 10), (0,), (0, 12, 10)])
def test_cuts_that_do_not_cover_the_delta_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="cuts must"):
        split(delta(), cuts(*edges))


def test_a_hole_between_cuts_is_refused() -> None:
    with_hole = [cuts(0, 4)[0], cuts(5, 10)[0]]
    with pytest.raises(ValueError, match="without a hole"):
        split(delta(), with_hole)


@settings(deadline=None, max_examples=60)
@given(
    energy=st.integers(0, 10**12),
    start=st.integers(0, 10**15),
    steps=st.lists(st.integers(0, 10**9), min_size=1, max_size=12),
)
def test_a_split_loses_no_millijoule_and_its_counters_chain(
    energy: int, start: int, steps: list[int]
) -> None:
    edges = [T0]
    for step in steps:
        edges.append(edges[-1] + timedelta(microseconds=step))
    whole = delta(energy, 1.0, start).model_copy(update={"end": edges[-1]})
    parts = split(whole, [Cut(a, b, Account.IDLE, None, None, None) for a, b in itertools.pairwise(edges)])
    mj = [piece.energy_mj or 0 for _, piece in parts]
    assert sum(mj) == energy
    assert min(mj) >= 0
    marks = [(piece.counter_start_mj, piece.counter_end_mj) for _, piece in parts]
    assert marks[0][0] == start
    assert marks[-1][1] == start + energy
    assert all(a[1] == b[0] for a, b in itertools.pairwise(marks))
    assert all(b is not None and a is not None and b - a == e for (a, b), e in zip(marks, mj, strict=True))
    total = sum(steps)
    for step, e in zip(steps, mj, strict=True):
        assert total == 0 or abs(e - energy * step / total) <= 1.001


@settings(deadline=None, max_examples=60)
@given(energy=st.integers(0, 10**12), n=st.integers(1, 40))
def test_shares_are_equal_to_a_millijoule_and_add_up(energy: int, n: int) -> None:
    parts = [piece.energy_mj or 0 for piece in share(delta(energy), n)]
    assert sum(parts) == energy
    assert max(parts) - min(parts) <= 1


def test_sharers_share_the_power_too() -> None:
    both = share(delta(), 2)
    assert [p.power_w for p in both] == [0.5, 0.5]
    assert {(p.start, p.end) for p in both} == {(T0, T0 + timedelta(seconds=10))}
    assert share(delta(), 1) == [delta()]
    with pytest.raises(ValueError, match="0 jobs"):
        share(delta(), 0)

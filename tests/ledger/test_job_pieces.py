"""A long job's rows added up in the database give its report the figures that the rows give."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.job_history import T0, interval, submitted, write_history

from carbonsched.ledger import Ledger
from carbonsched.model.energy import EnergyMethod
from carbonsched.report import build
from carbonsched.report.timing import PIECE_US, Work

DAY = T0 + timedelta(days=1)


@pytest.fixture
def history() -> Iterator[Ledger]:
    with Ledger.open("sqlite://") as ledger:
        write_history(ledger, submitted())
        yield ledger


def test_a_report_is_the_same(history: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    by_row = build(history, "scitldr-1", now=DAY)
    asked: list[int] = []
    each_piece = Ledger.each_piece

    def watched(self: Ledger, *args: Any, piece_us: int, **kw: Any) -> None:
        asked.append(piece_us)
        each_piece(self, *args, piece_us=piece_us, **kw)

    monkeypatch.setattr(Ledger, "each_piece", watched)
    monkeypatch.setattr("carbonsched.report.job_savings.MOST_ROWS", 0)
    found = build(history, "scitldr-1", now=DAY)
    assert asked, "it is no longer drawn of rows"
    # the curve is of pieces, which are finer than its points, and spread evenly; all else is the same to the last digits
    curve = {"timeline": True}
    assert near(found.model_dump(exclude=curve)) == by_row.model_dump(exclude=curve)
    assert found.savings is not None
    assert found.timeline[-1].spent_g == pytest.approx(by_row.timeline[-1].spent_g)
    assert [point.segment for point in found.timeline].count(None) == pytest.approx(
        [point.segment for point in by_row.timeline].count(None), abs=3
    )


def near(value: Any) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, rel=1e-9, abs=1e-9)
    if isinstance(value, dict):
        return {key: near(one) for key, one in value.items()}
    return type(value)(near(one) for one in value) if isinstance(value, list | tuple) else value


ROW = st.tuples(
    st.sampled_from(("GPU-a", "GPU-b")),
    st.sampled_from((10, 10, 10, 7, 1)),  # seconds
    st.sampled_from((0, 0, 0, 5, -4)),  # a hole before it, or over the last one
    st.one_of(st.none(), st.integers(0, 10**7)),
    st.sampled_from((None, 0, 1)),
    st.sampled_from((None, 0.5)),
    st.sampled_from((None, 200.0, 210.0)),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=25), st.sampled_from((1, 30, 300)))
def test_work_and_energy_are_those_of_the_rows(rows: list[Any], piece_s: int) -> None:
    with Ledger.open("sqlite://") as ledger:
        ledger.add_job(submitted("j"))
        at = {"GPU-a": T0, "GPU-b": T0 + timedelta(seconds=3)}
        made = []
        for board, seconds, hole, energy, segment, rho, g in rows:
            start = max(at[board] + timedelta(seconds=hole), T0)
            at[board] = start + timedelta(seconds=seconds)
            more = {"segment": segment, "rho": rho, "g_per_kwh": g, "method": EnergyMethod.ESTIMATED}
            made.append(interval(start, seconds, energy, board=board, job_id="j", **more))
        ledger.append(made)
        by_row, by_piece = list[dict[str, Any]](), list[dict[str, Any]]()
        ledger.each_row(by_row.append, "j")
        ledger.each_piece(by_piece.append, "j", piece_us=piece_s * 1_000_000)
    assert len(by_piece) <= len(by_row)
    for key in (("board",), ("segment", "g_per_kwh"), ("rho", "pue")):
        assert sums(by_piece, key) == sums(by_row, key)
    assert covered(by_piece) == covered(by_row)
    assert facility(by_piece) == pytest.approx(facility(by_row))
    assert all(row["end_us"] - row["start_us"] <= max(PIECE_US, 10_000_000) + 10_000_000 for row in by_piece)


def sums(rows: list[dict[str, Any]], key: tuple[str, ...]) -> dict[tuple[Any, ...], tuple[int, Any]]:
    """Key → (millijoules, grams)."""
    found: dict[tuple[Any, ...], tuple[int, float]] = {}
    for row in rows:
        name = tuple(row[each] for each in key)
        mj, grams = found.get(name, (0, 0.0))
        found[name] = mj + (row["energy_mj"] or 0), grams + (row["grams"] or 0.0)
    return {name: (mj, pytest.approx(grams)) for name, (mj, grams) in found.items()}


def covered(rows: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    """Where each board has rows: what touches is one."""
    found: list[tuple[str, int, int]] = []
    for row in sorted(rows, key=lambda each: (each["board"], each["start_us"], each["end_us"])):
        board, start, end = row["board"], row["start_us"], row["end_us"]
        if found and found[-1][0] == board and start <= found[-1][2]:
            found[-1] = board, found[-1][1], max(end, found[-1][2])
        else:
            found.append((board, start, end))
    return found


def facility(rows: list[dict[str, Any]]) -> float:
    work = Work()
    for row in rows:
        work.add(row)
    return sum(piece.facility_mj for piece in work.pieces)

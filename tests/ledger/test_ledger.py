"""What a daemon asks of its ledger: jobs, decisions, segments, offsets, marks, and sums that add up."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.intervals import intervals
from support.job_history import GPU, T0, directive, done, interval, submitted, write_history

from carbonsched.errors import LedgerError, NotFoundError, StateError
from carbonsched.ledger import Ledger
from carbonsched.model.energy import EnergyMethod
from carbonsched.model.job_state import JobState


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def test_a_job_comes_back_as_it_was_submitted(ledger: Ledger) -> None:
    job = submitted()
    ledger.add_job(job)
    record = ledger.job(job.id)
    assert record.submitted == job
    assert (record.state, record.budget_g, record.started_at) == (JobState.QUEUED, 120.0, None)
    with pytest.raises(StateError, match="already in the ledger"):
        ledger.add_job(job)
    with pytest.raises(NotFoundError, match="carbonsched ps"):
        ledger.job("nobody")


def test_states_follow_the_table_and_every_move_is_in_the_history(ledger: Ledger) -> None:
    job = submitted()
    ledger.add_job(job)
    ledger.set_state(job.id, JobState.RUNNING, "started", "daemon", T0 + timedelta(seconds=1))
    ledger.set_state(job.id, JobState.STOPPED, "budget below floor", "daemon", T0 + timedelta(seconds=9))
    assert ledger.job(job.id).ended_at == T0 + timedelta(seconds=9)
    with pytest.raises(StateError, match="possible from here: queued"):
        ledger.set_state(job.id, JobState.FINISHED, "", "daemon", T0)
    ledger.set_state(job.id, JobState.QUEUED, "resumed", "ada", T0 + timedelta(seconds=20))
    record = ledger.job(job.id)
    assert (record.ended_at, record.started_at) == (None, T0 + timedelta(seconds=1))
    states = [(e["actor"], e["state"]) for e in ledger.history(job.id, kinds=("state",))]
    assert states == [("daemon", "running"), ("daemon", "stopped"), ("ada", "queued")]
    assert ledger.history(job.id)[0]["kind"] == "submitted"


def test_a_budget_share_becomes_grams_once_it_is_known(ledger: Ledger) -> None:
    job = submitted(budget_g=None)
    ledger.add_job(job)
    assert ledger.job(job.id).budget_g is None
    ledger.set_budget(job.id, 61.5, "half of 123 g", "daemon", T0)
    assert ledger.job(job.id).budget_g == 61.5
    assert ledger.history(job.id, kinds=("budget",))[0]["reason"] == "half of 123 g"
    assert ledger.verify().ok


def test_a_segment_done_again_is_a_new_attempt(ledger: Ledger) -> None:
    job = submitted()
    ledger.add_job(job)
    for n in (0, 1):
        at = T0 + timedelta(hours=n + 1)
        ledger.save_segment(
            job.id, done(3, at, 0.6 + n / 10), at - timedelta(minutes=50), at, directive(3, at, 0.7)
        )
    (last,) = ledger.segments(job.id)
    assert (last.attempt, last.done.rho_directed, last.price) == (1, 0.7, directive(3, at, 0.7).price)
    assert [s.attempt for s in ledger.segments(job.id, lost=True)] == [0, 1]


def test_offset_and_rows_are_kept_together_or_not_at_all(ledger: Ledger) -> None:
    job = submitted()
    ledger.add_job(job)
    assert ledger.offset(job.id) == 0
    with pytest.raises(RuntimeError), ledger.transaction():  # noqa: PT012
        ledger.append([interval(T0, 10, 5, job_id=job.id)])
        ledger.set_offset(job.id, 100)
        assert ledger.offset(job.id) == 100, "a transaction sees its own writes"
        raise RuntimeError
    assert (ledger.offset(job.id), ledger.totals(job.id).rows) == (0, 0)
    with ledger.transaction():
        ledger.append([interval(T0, 10, 5, job_id=job.id)])
        ledger.set_offset(job.id, 100)
        ledger.set_offset(job.id, 250)
    assert (ledger.offset(job.id), ledger.totals(job.id).rows) == (250, 1)


def test_a_refused_write_dooms_the_transaction_even_if_it_is_swallowed(ledger: Ledger) -> None:
    job = submitted()
    ledger.add_job(job)
    # a handler that goes on must not commit half a tick
    with pytest.raises(LedgerError, match="none is kept"), ledger.transaction() as connection:  # noqa: PT012
        ledger.append([interval(T0, 10, 5, job_id=job.id)])
        with pytest.raises(LedgerError), ledger.transaction():
            connection.exec_driver_sql("INSERT INTO jobs (id) VALUES ('half')")
    assert ledger.totals(job.id).rows == 0


def test_rows_come_back_as_they_were_written(ledger: Ledger) -> None:
    rows = [
        interval(
            T0 + timedelta(seconds=10.000001 * n), 10, 1000 + n, job_id="j", segment=n % 3, rho=0.5, counter=n
        )
        for n in range(2300)
    ]
    rows.append(interval(T0 + timedelta(days=1), 10, None, g_per_kwh=None))
    ledger.append(rows)
    assert intervals(ledger) == rows
    middle = intervals(ledger, "j", T0 + timedelta(seconds=100), T0 + timedelta(seconds=200))
    assert list(middle) == rows[10:20]


def test_marks_are_where_each_board_ends(ledger: Ledger) -> None:
    ledger.append(
        [
            interval(T0, 10, 500, counter=1000),
            interval(T0, 10, 70, board="host", method=EnergyMethod.ESTIMATED),
            interval(T0 + timedelta(seconds=10), 10, 300, counter=1500, job_id="a"),
            interval(T0 + timedelta(seconds=20), 5, None),
        ]
    )
    marks = ledger.marks()
    gpu, host = marks[GPU], marks["host"]
    assert gpu.at == T0 + timedelta(seconds=25)
    assert gpu.counter_mj == 1800, "a reading that failed last does not forget the counter"
    assert (gpu.counter_epoch, gpu.power_w) == ("boot-1:0", None)
    assert gpu.least_w == pytest.approx(0.03), "the lower one of its rows by a counter"
    assert (host.counter_mj, host.power_w) == (None, pytest.approx(0.007))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grams": 1.0}, "energy × PUE × intensity gives"),
        ({"grams": None}, "grams are None"),
        ({"job_id": None}, "account job with job None"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(
    ledger: Ledger, change: dict[str, object], said: str
) -> None:
    good = interval(T0, 10, 500, job_id="j")
    with pytest.raises(LedgerError, match=said):
        ledger.append([good, good.model_copy(update=change)])
    assert ledger.totals().rows == 0, "none of the batch is kept"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"end": T0 - timedelta(seconds=1)}, "ends before it starts"),
        ({"energy_mj": -1}, "-1 mJ is not possible"),
        ({"energy_mj": None, "reason": None}, "needs a reason"),
        ({"power_w": float("nan")}, "unknown is null"),
        ({"counter_start_mj": 2**63}, "is not possible"),
    ],
)
def test_a_delta_that_cannot_be_is_refused(ledger: Ledger, change: dict[str, object], said: str) -> None:
    good = interval(T0, 10, 500)
    with pytest.raises(LedgerError, match=said):
        ledger.append([good.model_copy(update={"delta": good.delta.model_copy(update=change)})])


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", None]),
        st.sampled_from([None, 0, 1]),
        st.sampled_from([GPU, "host"]),
        st.one_of(st.none(), st.integers(0, 10**12)),
        st.one_of(st.none(), st.floats(0, 2000)),
        st.booleans(),
        st.sampled_from([EnergyMethod.COUNTER, EnergyMethod.ESTIMATED]),
    ),
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_totals_are_the_naive_sums(rows: list[tuple]) -> None:  # type: ignore[type-arg]
    made = [
        interval(
            T0 + timedelta(seconds=n),
            1,
            mj,
            job_id=job,
            segment=k,
            board=board,
            g_per_kwh=g,
            bridged=b,
            method=how,
        )
        for n, (job, k, board, mj, g, b, how) in enumerate(rows)
    ]
    with Ledger.open("sqlite://") as ledger:
        ledger.append(made)
        for job in ("a", "b"):
            mine = [row for row in made if row.job_id == job]
            known = [row for row in mine if row.delta.energy_mj is not None]
            totals = ledger.totals(job)
            assert totals.rows == len(mine)
            assert totals.energy_mj == sum(row.delta.energy_mj or 0 for row in known)
            assert totals.grams == pytest.approx(sum(row.grams or 0.0 for row in mine), rel=1e-9)
            modelled = [r for r in known if r.delta.method is not EnergyMethod.COUNTER]
            assert totals.estimated_mj == sum(row.delta.energy_mj or 0 for row in modelled)
            for board in (GPU, "host"):
                blind = sum(1 for r in mine if r.grams is None and r.delta.device == board)
                assert totals.unknown_s >= blind
            by_segment = ledger.segment_totals(job)
            assert sum(t.energy_mj for t in by_segment.values()) == totals.energy_mj
            paid = [(r.delta.energy_mj or 0, r.intensity.g_per_kwh) for r in known if r.intensity]
            if sum(mj for mj, _ in paid):
                mean = sum(mj * g for mj, g in paid) / sum(mj for mj, _ in paid)
                assert totals.g_per_kwh == pytest.approx(mean, rel=1e-9)
        assert ledger.verify().ok


def test_an_empty_ledger_answers_nothing(ledger: Ledger) -> None:
    totals = ledger.totals("nobody")
    assert (totals.rows, totals.energy_mj, totals.grams, totals.g_per_kwh, totals.power_w) == (
        0,
        0,
        0,
        None,
        None,
    )
    assert (ledger.marks(), ledger.segments("nobody"), ledger.verify().conservation, list(ledger.rows())) == (
        {},
        (),
        (),
        [],
    )
    assert ledger.verify().ok


def test_power_is_of_boards_side_by_side_and_unknown_time_is_not_idle_time(ledger: Ledger) -> None:
    ledger.append(
        [
            interval(T0, 10, 2_000_000, job_id="j"),
            interval(T0 + timedelta(seconds=10), 30, None, job_id="j"),
            interval(T0, 10, 500_000, job_id="j", board="host"),
        ]
    )
    totals = ledger.totals("j")
    assert totals.power_w == pytest.approx(250.0)
    assert (totals.seconds, totals.unknown_s) == (40.0, 30.0)


def test_readers_see_whole_transactions_while_a_writer_writes(ledger: Ledger) -> None:
    stop, seen, wrong = threading.Event(), [0], []

    def read() -> None:
        while not stop.is_set():
            # every transaction below adds one millijoule to each of two jobs
            groups = ledger.groups()
            sums = {job: sum(g.energy_mj for g in groups if g.job_id == job) for job in ("a", "b")}
            seen[0] += 1
            if sums["a"] != sums["b"]:
                wrong.append(sums)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for n in range(60):
            at = T0 + timedelta(seconds=n)
            with ledger.transaction():
                ledger.append([interval(at, 1, 1, job_id="a")])
                ledger.append([interval(at, 1, 1, job_id="b")])
    finally:
        stop.set()
        for reader in readers:
            reader.join(timeout=30)
    assert not wrong
    assert seen[0] > 3
    assert ledger.totals("a").energy_mj == 60


def test_the_story_conserves_every_counted_millijoule(ledger: Ledger) -> None:
    write_history(ledger, submitted())
    (balance,) = ledger.verify().conservation
    assert balance.ok
    assert (balance.holes_mj, balance.board) == (0, GPU)
    assert balance.charged_mj > 1e9
    assert ledger.verify().ok


def test_sums_are_added_to_as_rows_come_and_forget_what_was_rolled_back(ledger: Ledger) -> None:
    for n in range(20):
        at = T0 + timedelta(seconds=n)
        ledger.append([interval(at, 1, 10 + n, job_id="ab"[n % 2], segment=n % 3, bridged=n % 5 == 0)])
        with pytest.raises(RuntimeError), ledger.transaction():  # noqa: PT012
            ledger.append([interval(at, 1, 10**6, job_id="a")])
            assert ledger.totals("a").energy_mj >= 10**6
            raise RuntimeError
        for job in ("a", "b", None):
            mine = [row for row in ledger.rows() if job is None or row["job_id"] == job]
            totals = ledger.totals(job)
            assert (totals.rows, totals.energy_mj) == (len(mine), sum(row["energy_mj"] for row in mine))
            assert totals.bridged_s == sum(1 for row in mine if row["bridged"])
            assert totals.end == (
                at + timedelta(seconds=1) if mine and mine[-1]["id"] == n + 1 else totals.end
            )

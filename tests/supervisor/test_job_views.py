"""`ps` and `show` on a box with a long past: quick, and no tick waits for what they read."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from support.rig import ME, START, Rig, spec

from carbonsched.ledger.ledger import Ledger, spec_sha256
from carbonsched.ledger.tables import SEGMENTS as SEGMENTS_TABLE
from carbonsched.model.job import SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import SegmentDone
from carbonsched.supervisor import job_views
from carbonsched.supervisor.job_views import OVER_SHOWN
from carbonsched.supervisor.jobs.event_follower import EventFollower

OVER, SEGMENTS = 400, 10
NAMES = tuple(f"model.layers.{n}.self_attn.q_proj.weight" for n in range(200))


def fill(rig: Rig, jobs: int) -> None:
    """Jobs that are over, with the segments of a real one."""
    asked = spec("old")
    with rig.ledger.transaction() as connection:
        for n in range(jobs):
            job = SubmittedJob(
                id=f"old-{n:03d}",
                spec=asked,
                owner=ME,
                submitted_at=rig.clock.now(),
                sha256=spec_sha256(asked),
            )
            rig.clock.advance(1)
            rig.ledger.add_job(job)
            rig.ledger.set_state(job.id, JobState.CANCELLED, "enough", "test", rig.clock.now())
        rows = [
            {"job_id": f"old-{n:03d}", "k": k, "attempt": 0, "start_us": 0, "end_us": 1, "done": text}
            for k, text in enumerate(done(k).model_dump_json() for k in range(SEGMENTS))
            for n in range(jobs)
        ]
        connection.execute(insert(SEGMENTS_TABLE), rows)


def done(k: int) -> SegmentDone:
    return SegmentDone(
        at=START, k=k, first_step=10 * k, steps=10, rho_directed=0.5, rho_planned=0.5, rho_realised=0.5,
        flops=1.0, flops_full=2.0, loss=3.0 - 0.1 * k, seconds=1.0, importance_seconds=0.0,
        selection_seconds=0.0, selected=NAMES, directive_seq=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig"))
    fill(rig, OVER)
    yield rig
    rig.die()


def test_ps_shows_what_lives_and_what_ended_last_and_says_what_it_leaves_out(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig.submit()
    read: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("last_segments", "segments", "segment_totals"):
            real = getattr(Ledger, name)
            patch.setattr(Ledger, name, lambda *a, _n=name, _r=real, **k: read.append(_n) or _r(*a, **k))
        listed = rig.service.jobs(ME)
    assert read == ["last_segments"], "no job's whole past is read, and those that are listed only at once"
    ids = [view.id for view in listed.jobs]
    assert ids == [*(f"old-{n:03d}" for n in range(OVER - OVER_SHOWN, OVER)), job.id]
    assert listed.left_out == OVER - OVER_SHOWN
    last = listed.jobs[-2]
    assert (last.state, last.step, last.loss) == ("cancelled", 100, pytest.approx(2.1))
    every = rig.service.jobs(ME, every=True)
    assert (len(every.jobs), every.left_out) == (OVER + 1, 0)
    assert all(job in every.jobs for job in listed.jobs)
    rig.service.cancel(job.id, ME)


def test_a_job_that_ended_just_now_is_shown_however_old_it_is(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    old = rig.submit(spec("first"))
    fill(rig, OVER_SHOWN + 1)
    rig.service.cancel(old.id, ME)
    assert rig.service.jobs(ME).jobs[0].id == old.id


def test_neither_holds_the_lock_while_the_past_is_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def watched(owner: type, name: str) -> None:
        real = getattr(owner, name)

        def call(self: Any, *args: Any, **how: Any) -> Any:
            held: list[bool] = []

            def attempt() -> None:
                held.append(not rig.supervisor.lock.acquire(blocking=False))
                if not held[0]:
                    rig.supervisor.lock.release()

            thread = threading.Thread(target=attempt)
            thread.start()
            thread.join()
            assert not held[0], f"{name} is read with the lock held"
            seen.append(name)
            return real(self, *args, **how)

        monkeypatch.setattr(owner, name, call)

    for name in ("listed", "totals", "last_segments", "segments", "segment_totals", "history", "offset"):
        watched(Ledger, name)
    watched(EventFollower, "replay")
    rig.service.jobs(ME)
    rig.service.show("old-007", ME)
    assert set(seen) >= {"listed", "totals", "last_segments", "segments", "history"}
    assert "replay" not in seen, "what a job that is over has said is not read again"


def test_show_of_a_job_that_is_over_tells_all_of_it(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    for k in range(4):
        for _ in job.play(k):
            pass
    before = job.show()
    (live,) = rig.service.jobs(ME).jobs
    assert live.waste == before.waste
    job.finish()
    shown = job.show()
    assert shown.waste is not None
    assert shown.waste == before.waste
    assert (shown.waste.stock_flops, shown.waste.flops) == pytest.approx((4 * 1.6e12, 4e12))
    assert shown.state == "finished"
    assert (shown.segments, shown.step, shown.steps, shown.loss) == (4, 40, 40, before.loss)
    assert [s.selected for s in shown.segments_done] == [("a",)] * 4
    assert shown.spent_g == pytest.approx(sum(s.spent_g for s in shown.segments_done), rel=0.5)
    (listed,) = rig.service.jobs(ME).jobs
    assert (listed.step, listed.loss, listed.spent_g) == (40, shown.loss, shown.spent_g)


def test_show_of_a_ledger_that_was_flooded_tells_the_last_of_each_kind_and_how_much_more_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_views, "SHOWN", 5)
    monkeypatch.setattr(job_views, "MOST_SHOWN", 7)
    rig = Rig(tmp_path)
    job = rig.running()
    for n in range(20):
        rig.ledger.note(job.id, "note", {"text": f"w{n}"}, "trainer", rig.clock.now())
        evaluated = {
            "event": "evaluated",
            "when": "segment",
            "step": n,
            "loss": 2.0,
            "metrics": {},
            "samples": 1,
        }
        rig.ledger.note(job.id, "evaluated", evaluated, "trainer", rig.clock.now())
        rig.ledger.save_segment(job.id, done(n), START, START, None)
        rig.ledger.save_segment(job.id, done(n), START, START, None)
    job.finish()
    shown = job.show()
    assert [e["text"] for e in shown.history if e["kind"] == "note"] == [f"w{n}" for n in range(15, 20)]
    assert {"submitted", "started", "state"} <= {e["kind"] for e in shown.history}, (
        "not pushed out by the notes"
    )
    assert [s.k for s in shown.segments_done] == list(range(13, 20))
    assert [e["step"] for e in shown.validation][-6:] == list(range(14, 20))
    assert shown.left_out == {"note": 15, "segment": 13, "evaluated": 13}


def test_names_of_tensors_are_not_kept_in_memory(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    for _ in job.play(0):
        pass
    assert [d.selected for d in rig.supervisor.runs[job.id].progress.done] == [()]
    assert rig.ledger.segments(job.id)[0].done.selected == ("a",)


def test_a_job_that_was_cancelled_in_its_midst_shows_how_many_segments_it_would_have_had(
    tmp_path: Path,
) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    for _ in job.play(0):
        pass
    rig.service.cancel(job.id, ME)
    job.finish("stopped")
    rig.run(2)
    listed = rig.service.jobs(ME).jobs[0]
    assert (listed.state, listed.segments_over, listed.segments) == (JobState.CANCELLED, 1, 4)

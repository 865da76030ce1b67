"""When a queued job should start: by the plans of those that run, estimated, and unknown with a reason."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rig import ME, Rig, checked, spec

from carbonsched.model.job import JobSpec, QueuePart
from carbonsched.supervisor.estimates.job_cost import LOAD_S
from carbonsched.supervisor.estimates.throughput import estimate_throughput
from carbonsched.supervisor.queue_outlook import MOST, ExpectedStart, Place, Waiting, forecast


def queued(name: str = "later", **queue: Any) -> JobSpec:
    return spec(name).model_copy(update={"queue": QueuePart(**queue)})


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, extra={"api": {"admins": ["root"]}})


def test_a_queued_job_starts_when_the_running_one_ends_by_its_plan(rig: Rig) -> None:
    first = rig.running()
    for _ in first.play(0):
        pass
    first.ready(1)
    rig.run(1)
    second, third = rig.submit(spec("b"), checked()), rig.submit(spec("c"), checked())
    rig.run(1)
    now = rig.clock.now()
    left_s = first.show().eta_s
    assert left_s is not None
    assert left_s > 0
    view, last = second.show(), third.show()
    assert view.starts_at == now + timedelta(seconds=left_s)
    assert view.starts_why == "after 1 job on gpu 0"
    assert view.segments == 4, "by its check, before it has begun"
    assert last.starts_why == "after 2 jobs on gpu 0"
    assert last.starts_at is not None
    step_s = estimate_throughput(rig.ledger, rig.meter.devices, spec()).step_s(checked())
    lasts_s = LOAD_S + 40 * step_s
    assert (last.starts_at - now).total_seconds() == pytest.approx(left_s + lasts_s, rel=1e-6)
    listed = {job.id: job for job in rig.service.jobs(ME).jobs}
    assert listed[third.id].starts_at is not None
    assert abs(listed[third.id].starts_at - last.starts_at) <= timedelta(milliseconds=1), (
        "as a document writes it"
    )
    assert listed[first.id].starts_why is None


def test_without_a_check_nobody_knows_how_long_the_one_before_takes(rig: Rig) -> None:
    first, second = rig.running(), rig.submit(spec("b"))
    rig.run(1)
    view = second.show()
    assert view.starts_at is None
    assert view.starts_why == f"{first.id} is before it, and nobody knows yet when that ends"


def test_what_is_held_says_by_what(rig: Rig) -> None:
    first = rig.running(foreseen=checked())
    after = rig.submit(queued("after", after=[first.id]), checked())
    rig.run(1)
    assert after.show().starts_why == "after 1 job on gpu 0"
    rig.service.drain("new disks", ME)
    assert after.show().starts_why == "the box is drained by root: new disks"
    rig.service.undrain(ME)
    rig.service.cancel(first.id, ME)
    first.finish("stopped")
    view = after.show()
    assert view.starts_at is None
    assert view.starts_why is not None
    assert view.starts_why.startswith(f"waits for {first.id}, which is cancelled")


def test_allowed_hours_are_what_a_job_waits_for_on_an_empty_box(rig: Rig) -> None:
    job = rig.submit(spec("night", allowed_hours=["22:00-06:00"]), checked())
    rig.run(1)
    view = job.show()
    assert view.starts_why == "when its allowed hours begin"
    assert view.starts_at is not None
    assert (view.starts_at.hour, view.starts_at.minute) == (22, 0)


def test_of_a_long_queue_the_end_is_not_reckoned(rig: Rig) -> None:
    rig.running(foreseen=checked())
    jobs = [rig.submit(spec(f"q{n}")) for n in range(MOST + 1)]
    assert jobs[-1].show().starts_why == f"more than {MOST} jobs are before it"


@given(
    free=st.lists(st.floats(0, 1e6), min_size=1, max_size=4),
    lasts=st.lists(st.tuples(st.floats(0, 1e5), st.integers(1, 3)), max_size=20),
)
def test_no_two_jobs_have_one_place_at_a_time(free: list[float], lasts: list[tuple[float, int]]) -> None:
    boards = len(free)
    jobs = [Waiting(str(n), seconds, places=min(wide, boards)) for n, (seconds, wide) in enumerate(lasts)]
    found = forecast([Place(f"gpu {n}", at) for n, at in enumerate(free)], jobs, {})
    assert [job.id for job in jobs] == list(found)
    spans = [(found[job.id].seconds or 0.0, job) for job in jobs]
    for start, job in spans:
        assert start >= sorted(free)[job.places - 1] - 1e-6
        at_once = sum(
            other.places for began, other in spans if began <= start < began + (other.lasts_s or 0.0)
        )
        assert at_once <= boards, "more at a time than there are boards"


def test_one_that_takes_several_boards_is_not_passed() -> None:
    places = [Place("gpu 0", 0.0), Place("gpu 1", 100.0, before=1, holder="a")]
    wide, small = Waiting("wide", 50.0, places=2), Waiting("small", 10.0)
    found = forecast(places, [wide, small], {"a": 100.0})
    assert found["wide"] == ExpectedStart(100.0, "after 1 job on gpu 0, gpu 1")
    assert found["small"].seconds == 150.0
    too_wide = forecast([Place("gpu 0")], [Waiting("wide", None, places=2)], {})
    assert too_wide["wide"] == ExpectedStart(None, "takes 2 boards, this box has 1")

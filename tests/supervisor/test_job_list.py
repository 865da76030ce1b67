"""`ps` of a long queue: what has not changed is not read again, and what has is shown at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.rig import ME, Rig, checked, spec

from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.views import JobList, JobView
from carbonsched.supervisor import job_list
from carbonsched.supervisor.job_views import job_view, of_run
from carbonsched.supervisor.queue_outlook import with_start

STRANGER = Owner(uid=70_001, gid=70_001, user="stranger")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def labelled(labels: dict[str, str]) -> JobSpec:
    return spec("next").model_copy(update={"labels": labels})


def listed(rig: Rig, actor: Owner = ME) -> dict[str, JobView]:
    text = "".join(rig.service.job_list(actor))
    return {job.id: job for job in JobList.model_validate_json(text).jobs}


def made_anew(rig: Rig) -> dict[str, JobView]:
    """As it is made of a job's run, without anything that was kept."""
    starts = rig.service.listing.outlook.starts(rig.supervisor)
    found: dict[str, JobView] = {}
    for run in rig.supervisor.runs.values():
        row = rig.ledger.job(run.id)
        view = job_view(row, lambda row=row, run=run: of_run(row, run, rig.clock))
        found[run.id] = with_start(view, starts[run.id], rig.clock.now()) if run.id in starts else view
    return found


def test_of_jobs_that_wait_nothing_is_read_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.running(foreseen=checked())
    waiting = [rig.submit(spec(f"q{n}")).id for n in range(3)]
    first, read, real = listed(rig), list[str](), Ledger.records

    def records(self: Ledger, ids: Sequence[str]) -> Any:
        read.extend(ids)
        return real(self, ids)

    monkeypatch.setattr(Ledger, "records", records)
    assert {job: listed(rig)[job] for job in waiting} == {job: first[job] for job in waiting}
    assert not set(read) & set(waiting)


def test_what_changed_is_shown_at_once(rig: Rig) -> None:
    running = rig.running(foreseen=checked())
    job = rig.submit(labelled({"starts_at": 'null,"starts_why":null'}))
    for change in (
        lambda: None,
        lambda: rig.service.budget(job.id, 500.0, ME),
        lambda: rig.service.pause(job.id, ME),
        lambda: rig.service.resume(job.id, ME),
        lambda: rig.service.drain("new disks", ME),
        lambda: rig.run(1),
        lambda: rig.service.undrain(ME),
        lambda: rig.run(3),
        lambda: running.finish(),
        lambda: rig.run(3),
    ):
        listed(rig)
        change()
        found = listed(rig)
        for job_id, view in made_anew(rig).items():
            assert found[job_id] == view
    assert listed(rig)[job.id].started_at is not None
    job.finish()
    rig.run(3)
    assert listed(rig)[job.id].state == "finished"
    assert not rig.service.listing._kept, "of jobs that are over nothing is kept"


def test_two_who_may_see_different_things_do_not_see_each_others(rig: Rig) -> None:
    rig.running(foreseen=checked())
    job = rig.submit(labelled({"project": "private"}))
    for _ in range(2):
        mine, theirs = listed(rig)[job.id], listed(rig, STRANGER)[job.id]
        assert (mine.labels, theirs.labels) == ({"project": "private"}, {})
        assert mine.starts_why
        assert theirs.starts_why is None
        assert theirs.reason == ""


@pytest.mark.parametrize("page", [1, 2, 3, 500])
def test_a_list_of_several_pieces_is_one_document(
    rig: Rig, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_list, "PAGE", page)
    assert JobList.model_validate_json("".join(rig.service.job_list(ME))) == JobList(jobs=())
    ids = [rig.submit(spec(f"q{n}")).id for n in range(3)]
    rig.service.cancel(ids[1], ME)
    assert list(listed(rig)) == ids

"""Jobs that are over are taken away, by hand or by `[retention]`; their rows in the ledger and their reports stay."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.as_user import as_user
from support.rig import ME, Played, Rig, spec

from carbonsched.errors import DeniedError, LaunchError, NotFoundError, StateError
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.job_state import JobState
from carbonsched.model.views import ReportQuery
from carbonsched.supervisor.quotas import Quotas
from carbonsched.supervisor.removal import Pruning, delete_folder

DAY_S = 86_400.0


def box(folder: Path, **retention: Any) -> Rig:
    return Rig(folder, extra={"retention": retention})


def finished(rig: Rig, job: JobSpec | None = None) -> Played:
    played = rig.running(job)
    rig.run(30)
    (played.dir / "output").mkdir(exist_ok=True)
    (played.dir / "output" / "model.safetensors").write_bytes(b"x" * 100_000)
    played.finish()
    rig.run(2)
    assert rig.ledger.job(played.id).state is JobState.FINISHED
    return played


def listed(rig: Rig) -> list[str]:
    return [job.id for job in rig.service.jobs(ME, every=True).jobs]


def test_the_folder_goes_and_the_ledger_stays(tmp_path: Path) -> None:
    rig = box(tmp_path)
    job = finished(rig)
    spent = rig.ledger.totals(job.id)
    removed = rig.service.remove(job.id, ME)
    assert removed.freed_bytes is not None
    assert removed.freed_bytes >= 100_000
    assert not job.dir.exists()
    assert listed(rig) == []
    assert rig.ledger.totals(job.id) == spent
    assert spent.energy_mj > 0
    pieces, _ = rig.service.render_report(ReportQuery(job=job.id), "json", ME)
    assert job.id in "".join(pieces)
    shown = rig.service.show(job.id, ME)
    assert (shown.output, shown.energy_j) == (None, pytest.approx(spent.energy_mj / 1000))
    assert rig.ledger.verify().ok
    # its name is free for others, the very id still means it
    with pytest.raises(NotFoundError):
        rig.service.resolve("tiny", ME)
    assert rig.service.resolve(job.id, ME) == job.id
    rig.die()
    rig.boot()
    assert listed(rig) == []
    assert rig.service.remove(job.id, ME).freed_bytes == 0


def test_a_job_that_is_not_over_stays(tmp_path: Path) -> None:
    rig = box(tmp_path)
    job = rig.running()
    with pytest.raises(StateError, match=f"is running; carbonsched cancel {job.id} ends it"):
        rig.service.remove(job.id, ME)
    assert job.dir.exists()


def test_only_its_owner_and_admins_remove_a_job(tmp_path: Path) -> None:
    rig = box(tmp_path)
    job = finished(rig)
    with pytest.raises(DeniedError, match=f"may remove job {job.id}"):
        rig.service.remove(job.id, Owner(uid=12346, gid=12346, user="bob"))
    assert job.dir.exists()


def test_a_removed_job_is_not_taken_up_again(tmp_path: Path) -> None:
    rig = box(tmp_path)
    job = rig.running()
    rig.launcher.end(job.dir, code=1)
    rig.run(2)
    assert rig.ledger.job(job.id).state is JobState.FAILED
    rig.service.remove(job.id, ME)
    for again in (lambda: rig.service.resume(job.id, ME), lambda: rig.service.budget(job.id, 200.0, ME)):
        with pytest.raises(StateError, match="was removed with its checkpoints; submit it again"):
            again()
    assert rig.ledger.job(job.id).state is JobState.FAILED


@pytest.mark.parametrize("again", ["resume", "budget"])
def test_a_job_that_is_removed_while_it_is_taken_up_again_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    """Another request may remove it between the look at what is removed and the supervisor's lock."""
    rig = Rig(tmp_path, extra={"quotas": [{"who": "*", "jobs": 4}]})
    job = rig.running()
    rig.launcher.end(job.dir, code=1)
    rig.run(2)
    taking = Quotas.taking

    @contextmanager
    def slowly(self: Quotas, *args: Any, **more: Any) -> Iterator[None]:
        with taking(self, *args, **more):
            rig.service.remove(job.id, ME)
            yield

    monkeypatch.setattr(Quotas, "taking", slowly)
    with pytest.raises(StateError, match="was removed with its checkpoints; submit it again"):
        rig.service.resume(job.id, ME) if again == "resume" else rig.service.budget(job.id, 900.0, ME)
    assert job.id not in rig.supervisor.runs


def test_a_removed_job_is_not_given_for_its_dedupe_key(tmp_path: Path) -> None:
    rig = box(tmp_path)
    keyed = JobSpec.parse(spec().dump() | {"queue": {"dedupe_key": "nightly"}})
    job = finished(rig, keyed)
    assert rig.service.submit(keyed, ME).id == job.id
    rig.service.remove(job.id, ME)
    assert rig.service.submit(keyed, ME).id != job.id


def test_retention_takes_what_ended_long_ago_and_may_be_taken(tmp_path: Path) -> None:
    rig = box(tmp_path, after="7d")
    old, pruning = finished(rig), Pruning(rig.supervisor)
    failed = rig.running()
    rig.launcher.end(failed.dir, code=1)
    rig.run(2)
    pruning.poll()
    assert old.dir.exists()
    rig.clock.advance(7 * DAY_S + 60)
    young = finished(rig)
    pruning.poll()
    assert [old.dir.exists(), failed.dir.exists(), young.dir.exists()] == [False, True, True]
    entry = rig.ledger.history(old.id, kinds=("removed",))[-1]
    assert (entry["actor"], entry["reason"]) == (
        "daemon",
        "removed: finished longer ago than retention.after",
    )


def test_retention_changes_on_reload_and_keeps_all_by_default(tmp_path: Path) -> None:
    rig = box(tmp_path)
    job, pruning = finished(rig), Pruning(rig.supervisor)
    rig.clock.advance(timedelta(days=400).total_seconds())
    pruning.poll()
    assert job.dir.exists()
    kept = rig.config.retention.model_copy(update={"after": DAY_S})
    rig.supervisor.reconfigure(rig.config.model_copy(update={"retention": kept}))
    rig.clock.advance(3700)
    pruning.poll()
    assert not job.dir.exists()


def test_a_folder_that_could_not_be_deleted_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = box(tmp_path)
    job = finished(rig)

    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", refuse)
        with pytest.raises(StateError, match="Read-only file system; it is tried again every hour"):
            rig.service.remove(job.id, ME)
    assert (job.dir.exists(), listed(rig)) == (True, [])
    Pruning(rig.supervisor).poll()
    assert not job.dir.exists()


def test_one_folder_that_cannot_be_deleted_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = box(tmp_path, after="7d")
    left = sorted([finished(rig), finished(rig)], key=lambda job: job.id)
    rmtree = shutil.rmtree

    def refuse_all(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", refuse_all)
        for job in left:
            with pytest.raises(StateError):
                rig.service.remove(job.id, ME)
    old = finished(rig)
    rig.clock.advance(7 * DAY_S + 60)

    def too_deep(path: Path) -> None:
        if path == left[0].dir:  # a user's folders in folders, a thousand deep
            raise RecursionError("maximum recursion depth exceeded")
        rmtree(path)

    monkeypatch.setattr("shutil.rmtree", too_deep)
    Pruning(rig.supervisor).poll()
    assert [left[0].dir.exists(), left[1].dir.exists(), old.dir.exists()] == [True, False, False]


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    rig = box(tmp_path / "box")
    job, other = finished(rig), tmp_path / "mine"
    other.mkdir()
    (other / "kept").write_text("kept")
    (job.dir / "output" / "link").symlink_to(other)
    rig.service.remove(job.id, ME)
    assert (other / "kept").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_its_owner_closed_is_said_to_be_so_with_who_can_delete_it() -> None:
    daemon, alice = 65534, 12345
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        job = Path(name) / "tiny-1"
        closed = job / "output" / "mine"
        closed.mkdir(parents=True)
        (closed / "model").write_text("x")
        for path, uid, mode in (
            (job, daemon, 0o755),
            (job / "output", daemon, 0o755),
            (closed, alice, 0o700),
        ):
            os.chown(path, uid, uid)
            path.chmod(mode)
        with pytest.raises(StateError) as raised:
            as_user(daemon, lambda: delete_folder(job))
        said = str(raised.value)
        assert "output/mine in it is 12345's, and closed to nobody" in said
        assert f"12345 opens it with chmod -R a+rwX {closed}, or root deletes it" in said
        assert closed.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("helps", [True, False])
def test_the_owners_rights_are_asked_for_where_a_folder_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, helps: bool
) -> None:
    rig = box(tmp_path)
    job = finished(rig)
    asked: list[tuple[Path, Owner]] = []

    def open_written(_: object, folder: Path, owner: Owner) -> None:
        asked.append((folder, owner))
        if not helps:
            raise LaunchError("uid 12345 has no account here")
        (folder / "output" / "mine").chmod(0o777)

    monkeypatch.setattr(type(rig.launcher), "open_written", open_written)
    (job.dir / "output" / "mine").mkdir()
    (job.dir / "output" / "mine").chmod(0o700)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).stat().st_mode & 0o7 == 0o7)
    rig.service.remove(job.id, ME)
    assert asked == [(job.dir, rig.ledger.job(job.id).owner)]
    assert ("owner's rights are not to be had: uid 12345 has no account here" in caplog.text) is not helps

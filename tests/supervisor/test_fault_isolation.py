"""One file of one job's folder is spoilt, at random: the daemon starts, the other job goes on, no energy is lost.

30 cases by default, most of them slow; CARBONSCHED_FUZZ says how many. The launcher's looks at run.json, exit.json and /proc are the real ones.
"""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from support.manual_clock import ManualClock
from support.rig import ME, Played, Rig, checked, spec
from support.trainer_events import DONE, READY

from carbonsched.launch import process_group, shim
from carbonsched.launch.base import ProcessStatus
from carbonsched.launch.local import LocalLauncher
from carbonsched.model.base import rfc3339
from carbonsched.model.job import JobSpec, Owner
from carbonsched.model.job_state import JobState
from carbonsched.model.protocol import RunRecord
from carbonsched.supervisor.fault_isolation import PATIENCE_S
from carbonsched.supervisor.grid_watch import GridWatch
from carbonsched.supervisor.metering import Metering

CASES = int(os.environ.get("CARBONSCHED_FUZZ", "30"))
QUICK = 12
"""The others are marked slow."""
NOBODY = 65534


class Sleepers:
    """A launcher whose trainers sleep; their records are files, and are read by the real launcher."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.real = clock, LocalLauncher()
        self.processes: dict[Path, subprocess.Popen[bytes]] = {}

    def start(
        self,
        job_dir: Path,
        argv: list[str],
        env: dict[str, str],
        owner: Owner,
        spec: JobSpec | None = None,
        log_bytes: int = 0,
    ) -> RunRecord:
        marks = {process_group.HELD: str(job_dir)}
        process = subprocess.Popen(["/bin/sleep", "1000"], env=marks, start_new_session=True)
        self.processes[job_dir] = process
        record = {
            "pid": process.pid,
            "start_time": shim.start_time(process.pid),
            "boot_id": shim.boot_id(),
            "started_at": rfc3339(self.clock.now()),
            "argv": argv,
        }
        (job_dir / "exit.json").unlink(missing_ok=True)
        shim.write_record(str(job_dir), "run.json", record)
        return RunRecord.model_validate(record)

    def check(self, spec: JobSpec, owner: Owner) -> None: ...
    def prepare(self, job_dir: Path, owner: Owner) -> None: ...

    def poll(self, job_dir: Path) -> ProcessStatus:
        return self.real.poll(job_dir)

    def pids(self, job_dir: Path) -> set[int]:
        return self.real.pids(job_dir)

    def terminate(self, job_dir: Path) -> None:
        self.end(job_dir, code=0)

    def kill(self, job_dir: Path) -> None:
        self.end(job_dir, code=None)

    def open_written(self, job_dir: Path, owner: Owner) -> None:
        pass

    def sweep(self, job_dir: Path) -> int:
        return self.real.sweep(job_dir)

    def end(self, job_dir: Path, code: int | None) -> None:
        process = self.processes.pop(job_dir, None)
        if process is None:
            return
        process.kill()
        process.wait()
        record = {"code": code, "signal": None if code is not None else 9, "at": rfc3339(self.clock.now())}
        with contextlib.suppress(OSError):  # what was spoilt may be in the way
            shim.write_record(str(job_dir), "exit.json", record)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def flip(path: Path, dice: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    for _ in range(dice.choice((1, 1, 3, 30))):
        data[dice.randrange(len(data))] = dice.randrange(256)
    path.write_bytes(data)


def insert(path: Path, dice: random.Random) -> None:
    data = path.read_bytes()
    at = dice.randrange(len(data) + 1)
    path.write_bytes(data[:at] + dice.randbytes(dice.choice((1, 20, 5000))) + data[at:])


def digits(path: Path, dice: random.Random) -> None:
    """Another number, time or word, which is still JSON more often than not."""
    data = path.read_bytes()
    places = [n for n, byte in enumerate(data) if 48 <= byte <= 57] or [0]
    at = dice.choice(places)
    word = dice.choice((b"9", b"-", b"e308", b"0", b"99999999999999999999", b"null", b".5"))
    path.write_bytes(data[:at] + word + data[at + 1 :])


def truncate(path: Path, dice: random.Random) -> None:
    os.truncate(path, dice.randrange(path.stat().st_size + 1))


def zeros(path: Path, dice: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def delete(path: Path, _dice: random.Random) -> None:
    path.unlink()


def retype(path: Path, dice: random.Random) -> None:
    path.unlink()
    kind = dice.randrange(6)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(dice.choice(("/dev/zero", "/etc/passwd", "/nowhere", str(path))))
    elif kind == 3:
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound, contextlib.chdir(path.parent):
            bound.bind(path.name)
    elif kind == 4:
        path.mkdir()
        (path / "full").write_text("")
    else:
        path.write_bytes(dice.randbytes(2_000_000))


def rights(path: Path, dice: random.Random) -> None:
    (path if dice.random() < 0.8 else path.parent).chmod(dice.choice((0, 0o111, 0o200, 0o444)))


HARMS = (flip, insert, digits, truncate, zeros, delete, retype, rights)


@contextlib.contextmanager
def whom_rights_hold_for(root: Path) -> Iterator[None]:
    """Root may read everything: as nobody, to whom all of it is given."""
    if os.geteuid() != 0:
        yield
        return
    root.chmod(0o755)
    for path in (root, *root.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that somebody without root's rights can enter."""
    path = Path(tempfile.mkdtemp())
    yield path
    shutil.rmtree(path, ignore_errors=True)


def begin(rig: Rig, dice: random.Random) -> tuple[Played, Played]:
    """(the job that will be spoilt, at some moment of its life, the other one)."""
    bad = rig.submit(spec("bad"), checked())
    good = rig.submit(spec("good"), checked())
    if dice.random() < 0.15:
        rig.service.pause(bad.id, ME)
    rig.run(2)
    good.started()
    for moment in range(dice.randrange(4)):
        if not rig.supervisor.runs[bad.id].alive:
            break
        if moment == 0:
            bad.started()
        elif moment == 1:
            bad.ready(0)
        elif moment == 2:
            rig.run(8)
            bad.done(0, bad.control()["rho"], 8.0)
        rig.run(2)
    return bad, good


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] if seed >= QUICK else []) for seed in range(CASES)]
)
def test_whatever_is_done_to_one_folder_the_other_job_goes_on(folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    rig = Rig(folder, extra={"launch": {"slots": 2}}, devices=2)
    sleepers = Sleepers(rig.clock)
    rig.launcher = sleepers  # type: ignore[assignment]
    rig.die()
    rig.boot()
    try:
        bad, good = begin(rig, dice)
        if dice.random() < 0.2:
            sleepers.end(bad.dir, code=dice.choice((0, 1, None)))
        restarted = dice.random() < 0.7
        if restarted:
            rig.die()
        harm = dice.choice(HARMS)
        harm(dice.choice(sorted(path for path in bad.dir.iterdir() if path.is_file())), dice)
        with whom_rights_hold_for(folder) if harm is rights else contextlib.nullcontext():
            if restarted:
                rig.clock.advance(5)
                rig.boot()
            _goes_on(rig, bad, good, sleepers)
    finally:
        sleepers.close()
        rig.die()


def _goes_on(rig: Rig, bad: Played, good: Played, sleepers: Sleepers) -> None:
    ticks = rig.supervisor.ticks
    for _ in good.play(0):
        pass
    rig.clock.advance(PATIENCE_S)
    rig.run(15)
    for _ in good.play(1):
        pass
    assert rig.supervisor.ticks - ticks >= 17
    shown = {view.id: view for view in rig.service.jobs(ME).jobs}
    assert shown[good.id].state is JobState.RUNNING, shown[good.id].reason
    assert [segment.k for segment in good.show().segments_done] == [0, 1]
    assert bad.id in shown
    rig.service.show(bad.id, ME)
    if bad.dir in sleepers.processes and os.geteuid() == os.getuid():
        assert rig.supervisor.runs[bad.id].alive, f"its process lives: {shown[bad.id].reason}"
    with contextlib.suppress(Exception):
        rig.service.cancel(bad.id, ME)
    rig.run(3)
    rig.supervisor.flush()
    found = rig.ledger.verify()
    assert found.ok, found.problem
    assert len(found.conservation) == 2
    assert all(balance.ok for balance in found.conservation), found.conservation


@pytest.mark.parametrize("part", ["_take_readings", "log_source", "changes"])
def test_a_fault_in_looking_at_feeds_leaves_no_job_without_orders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A feed's program may be another's, and answer what nobody foresaw."""

    def fails(_: GridWatch, *args: Any) -> NoReturn:
        raise ValueError("what nobody foresaw")

    monkeypatch.setattr(GridWatch, part, fails)
    rig = Rig(tmp_path)
    job = rig.running()
    assert next(job.play(0)) > 0
    rig.supervisor.stop()
    assert sum(rig.energy().values()) == rig.metered_mj() > 0


def test_the_end_writes_its_rows_though_the_last_tick_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(tmp_path)
    rig.running()
    rig.run(3)

    def fails(_: Metering, *args: Any) -> NoReturn:
        raise ValueError("what nobody foresaw")

    monkeypatch.setattr(Metering, "charge", fails)
    rig.supervisor.stop()
    assert rig.energy()["job"] > 0


BAD_EVENTS = {"empty frontier": READY | {"frontier": []}, "endless k": DONE | {"k": 10**30}}


@pytest.mark.parametrize("bad", BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_a_bad_event_of_one_job_leaves_the_others_steered(tmp_path: Path, bad: dict[str, object]) -> None:
    rig = Rig(tmp_path, extra={"launch": {"slots": 2}}, devices=2)
    first, second = rig.submit(spec("first")), rig.submit(spec("second"))
    rig.run(1)
    first.started()
    second.started()
    rig.run(1)
    first.say(**bad)  # type: ignore[arg-type]
    second.ready(0)
    rig.run(3)
    assert second.control()["action"] == "train"
    first.ready(0)
    rig.run(1)
    assert first.control()["action"] == "train", "the line was passed over, the job goes on"


STEPS = {
    "reading": ("carbonsched.supervisor.jobs.job_run.JobRun.apply", ValueError),
    "recording": ("carbonsched.ledger.ledger.Ledger.save_segment", OverflowError),
    "planning": ("carbonsched.supervisor.estimates.inputs.Estimates.gather", ZeroDivisionError),
}


@pytest.mark.parametrize(("target", "error"), STEPS.values(), ids=STEPS)
def test_a_job_the_daemon_cannot_go_on_with_fails_alone_and_is_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, error: type[Exception]
) -> None:
    """Whatever is wrong with one job is met by that job; provoked where each kind of trouble would arise."""
    rig = Rig(tmp_path, extra={"launch": {"slots": 2}}, devices=2)
    first, second = rig.submit(spec("first")), rig.submit(spec("second"))
    rig.run(1)
    for job in (first, second):
        job.started()
    rig.run(1)
    for _ in first.play(0):
        second.ready(0)
    owner, name = target.rsplit(".", 1)
    real = getattr(__import__(owner.rsplit(".", 1)[0], fromlist=["x"]), owner.rsplit(".", 1)[1])
    kept = getattr(real, name)

    def broken(self: object, *args: object, **named: object) -> object:
        about = {str(getattr(self, "id", "")), *(str(getattr(a, "id", a)) for a in args)}
        if first.id in about:
            raise error("not as foreseen")
        return kept(self, *args, **named)

    monkeypatch.setattr(real, name, broken)
    first.ready(1)
    rig.run(1)
    if target.endswith("save_segment"):
        first.done(1, 0.5, 10.0)
    second.say("step", k=0, step=5, steps=40, loss=2.0, lr=1e-4, seconds=2.0, rho=1.0)
    rig.run(3)
    assert ("terminate", first.dir) in rig.launcher.asked
    second.done(0, second.control()["rho"], 20.0)
    second.ready(1)
    rig.run(2)
    assert (second.control()["k"], second.control()["action"]) == (1, "train")
    rig.launcher.end(first.dir)
    rig.run(2)
    view = first.show() if target.endswith("save_segment") else rig.service.jobs(ME).jobs[0]
    assert view.state is JobState.FAILED
    assert "not as foreseen" in view.reason
    assert second.show().state is JobState.RUNNING
    rig.supervisor.flush()
    assert sum(rig.energy().values()) == sum(_metered(rig).values())
    entries = rig.ledger.history(first.id, kinds=("note",))
    assert any("not as foreseen" in entry["text"] for entry in entries)


def _metered(rig: Rig) -> dict[str, int]:
    rows = list(rig.ledger.rows())
    found = {}
    for device in {row["board"] for row in rows}:
        mine = [row for row in rows if row["board"] == device]
        found[device] = mine[-1]["counter_end_mj"] - mine[0]["counter_start_mj"]
    return found

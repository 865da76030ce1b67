"""Which board a job gets, what it is shown of the others, and what becomes of one that trains elsewhere."""

import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from support.processes import until
from support.rig import ME, Rig, spec

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.job_state import JobState
from carbonsched.power.base import Instance
from carbonsched.power.replay import ReplayMeter
from carbonsched.supervisor.placement import _ancestors

A, B = "GPU-0000000a-0000-0000-0000-000000000000", "GPU-0000000b-0000-0000-0000-000000000000"
HOST_ALONE = {"power": {"gpu": "none", "host": "auto"}}


@pytest.mark.parametrize(
    ("device", "uuid", "words"),
    [
        ("cpu", None, "trains on the CPU, board GPU-0000000a"),
        ("NVIDIA H100", B, f"trains on board {B}, {A} was given to it"),
    ],
)
def test_a_job_that_trains_elsewhere_fails_with_the_cause(
    tmp_path: Path, device: str, uuid: str | None, words: str
) -> None:
    rig = Rig(tmp_path, boards=(A, B))
    job = rig.submit()
    rig.run(1)
    assert rig.launcher.env[job.dir] == {"CUDA_VISIBLE_DEVICES": A}
    job.started(device=device, gpu_uuid=uuid)
    rig.run(1)
    assert ("terminate", job.dir) in rig.launcher.asked
    job.finish("stopped")
    view = job.show()
    assert view.state is JobState.FAILED
    assert words in view.reason
    assert f"carbonsched logs {job.id}" in view.reason


@pytest.mark.parametrize(
    ("device", "uuid"),
    [
        ("NVIDIA H100", A),
        ("NVIDIA H100", A.upper().replace("GPU-", "GPU-")),
        ("a script's own word for it", None),
    ],
)
def test_a_job_on_its_own_board_goes_on(tmp_path: Path, device: str, uuid: str | None) -> None:
    rig = Rig(tmp_path, boards=(A,))
    job = rig.submit()
    rig.run(1)
    job.started(device=device, gpu_uuid=uuid)
    rig.run(2)
    assert job.show().state is JobState.RUNNING
    assert rig.launcher.asked == []


def test_without_a_board_a_job_is_shown_none_and_may_train_on_none(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra=HOST_ALONE)
    job = rig.submit()
    rig.run(1)
    assert rig.launcher.env[job.dir] == {"CUDA_VISIBLE_DEVICES": ""}
    job.started(device="NVIDIA H100", gpu_uuid=A)
    rig.run(1)
    job.finish("stopped")
    assert "which no meter reads" in job.show().reason


def test_a_device_that_stands_in_for_a_board_hides_and_checks_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    job = rig.running()
    assert rig.launcher.env[job.dir] == {}
    assert job.show().state is JobState.RUNNING


class BoardMeter(ReplayMeter):
    """A replayed device that knows who else computes on it, and may be in MIG mode."""

    occupants: ClassVar[dict[str, int]] = {}
    """Board or instance → pid."""
    instances: ClassVar[tuple[Instance, ...]] = ()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        split = bool(self.instances)
        self.devices = tuple(replace(d, split=split, instances=self.instances) for d in self.devices)

    def occupant(self, board: str, mine: Callable[[int], bool], *, memory: bool = True) -> str | None:
        pid = self.occupants.get(board)
        return None if pid is None or mine(pid) else f"process {pid} (python) computes on it"


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> type[BoardMeter]:
    monkeypatch.setattr(BoardMeter, "occupants", {})
    monkeypatch.setattr(BoardMeter, "instances", ())
    return BoardMeter


def test_a_board_that_somebody_else_computes_on_is_given_to_nobody(
    tmp_path: Path, meter: type[BoardMeter]
) -> None:
    meter.occupants[A] = meter.occupants[B] = 1
    rig = Rig(tmp_path, meters=meter, boards=(A, B))
    job, later = rig.submit(), rig.submit()
    rig.run(3)
    for each in (job, later):
        view = each.show()
        assert view.state is JobState.QUEUED
        assert view.reason.startswith(f"waits for a board that nobody else uses: {A}: process 1 (python)")
    notes = [entry for entry in job.show().history if "waits for a board" in str(entry)]
    assert len(notes) == 1, "said once, not at every tick"
    del meter.occupants[B]
    rig.run(1)
    assert job.show().state is JobState.RUNNING
    assert rig.launcher.env[job.dir] == {"CUDA_VISIBLE_DEVICES": B}
    assert later.show().state is JobState.QUEUED


def test_who_comes_later_makes_the_energy_of_a_board_an_estimate(
    tmp_path: Path, meter: type[BoardMeter]
) -> None:
    rig = Rig(tmp_path, meters=meter, boards=(A,))
    rig.running()
    meter.occupants[A] = os.getpid()  # a process that is there, and none of the job's
    rig.run(25)
    rig.supervisor.flush()
    rows = [row for row in rig.ledger.rows() if row["account"] == "job"]
    assert rows[0]["method"] == "counter"
    assert rows[-1]["method"] == "estimated"
    assert "not a job's alone: process" in rows[-1]["reason"]
    assert sum(rig.energy().values()) == rig.metered_mj()


def test_a_driver_that_hangs_holds_nobody_up_and_its_board_is_given_to_nobody(
    tmp_path: Path, meter: type[BoardMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    go, answer = threading.Event(), meter.occupant

    def hang(self: BoardMeter, board: str, mine: Callable[[int], bool], *, memory: bool = True) -> str | None:
        go.wait(60)
        return answer(self, board, mine, memory=memory)

    rig = Rig(tmp_path, meters=meter, boards=(A, B))
    monkeypatch.setattr(meter, "occupant", hang)
    rig.supervisor.placement.driver_calls.patience_s = 0.01
    job = rig.submit()
    rig.run(3)
    assert job.show().reason.endswith(f"{A}: its driver does not answer who uses it")
    assert rig.supervisor.samples == 3, "metered meanwhile"
    go.set()
    until(
        lambda: (
            not any(each.thread.is_alive() for each in rig.supervisor.placement.driver_calls._open.values())
        ),
        60,
    )
    rig.supervisor.placement.driver_calls.patience_s = 60.0
    rig.run(1)
    assert job.show().state is JobState.RUNNING


def test_several_jobs_a_board_share_its_energy_as_an_estimate(tmp_path: Path) -> None:
    rig = Rig(tmp_path, boards=(A, B), extra={"launch": {"jobs_per_board": 2}})
    jobs = [rig.submit() for _ in range(5)]
    rig.run(2)
    shown = [rig.launcher.env.get(job.dir, {}).get("CUDA_VISIBLE_DEVICES") for job in jobs]
    assert shown == [A, B, A, B, None], "the emptiest board first"
    rig.run(10)
    rig.supervisor.flush()
    assert {row["method"] for row in rig.ledger.rows() if row["board"] == A} == {"estimated"}
    used = [rig.ledger.totals(job.id).energy_j for job in jobs[:4]]
    assert used == [pytest.approx(used[0], rel=0.01)] * 4
    assert rig.ledger.verify().ok


def test_a_job_in_mig_mode_gets_an_instance_and_its_slices_of_the_energy(
    tmp_path: Path, meter: type[BoardMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = "MIG-0000000a-0000", "MIG-0000000b-0000"
    others = Instance("MIG-0000000c-0000", 1, ours=False)
    monkeypatch.setattr(meter, "instances", (Instance(small, 2), Instance(large, 4), others))
    rig = Rig(tmp_path, meters=meter, boards=(A,))
    job = rig.submit()
    rig.run(1)
    assert rig.launcher.env[job.dir] == {"CUDA_VISIBLE_DEVICES": small}
    job.started(device="NVIDIA A100 MIG 2g.20gb", gpu_uuid=small.replace("MIG", "GPU"))
    rig.run(21)
    rig.supervisor.flush()
    energy = rig.energy()
    assert energy["job"] == pytest.approx(sum(energy.values()) * 2 / 7, rel=0.1)
    assert {row["method"] for row in rig.ledger.rows() if row["account"] == "job"} == {"estimated"}
    assert job.show().power_w == pytest.approx(100 * 2 / 7)
    rig.die()
    rig.boot()
    other, third = rig.submit(), rig.submit()
    rig.run(20)
    assert job.show().state is JobState.RUNNING
    assert rig.launcher.env[other.dir] == {"CUDA_VISIBLE_DEVICES": large}
    assert third.show().state is JobState.QUEUED, "what is left is not ours"
    rig.supervisor.flush()
    assert rig.ledger.totals(other.id).energy_j == pytest.approx(20 * 100 * 4 / 7, rel=0.1)
    assert sum(rig.energy().values()) == rig.metered_mj()
    assert rig.ledger.verify().ok


def test_more_slots_than_boards_have_room_for_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, boards=(A, B), extra={"launch": {"slots": 3}})
    assert "launch.slots = 3, but the boards here take 2 jobs" in caplog.text
    jobs = [rig.submit() for _ in range(3)]
    rig.run(3)
    assert [job.show().state for job in jobs].count(JobState.RUNNING) == 2
    assert caplog.text.count("launch.slots") == 1
    rig.supervisor.reconfigure(
        rig.config.model_copy(update={"launch": rig.config.launch.model_copy(update={"slots": 1})})
    )
    assert rig.supervisor.placement.slots() == 1


def test_a_process_is_known_by_those_above_it() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert list(_ancestors(child.pid))[:2] == [child.pid, os.getpid()]
        finally:
            child.kill()
    assert list(_ancestors(2**22 + 1)) == [2**22 + 1], "there is no such process"


def two_processes(name: str = "wide", parallel: str = "ddp", **train: Any) -> JobSpec:
    job = spec(name)
    part = job.train.model_dump() | {"parallel": parallel, "processes": 2} | train
    return job.model_copy(update={"train": TrainPart.model_validate(part)})


def test_a_job_of_two_processes_gets_two_boards_and_their_energy(tmp_path: Path) -> None:
    rig = Rig(tmp_path, boards=(A, B))
    job = rig.submit(two_processes())
    rig.run(1)
    assert rig.launcher.env[job.dir] == {"CUDA_VISIBLE_DEVICES": f"{A},{B}"}
    job.started(device="NVIDIA H100", gpu_uuid=B)
    rig.run(10)
    view = job.show()
    assert (view.state, view.boards, view.power_w) == (JobState.RUNNING, (A, B), 200.0)
    assert view.energy_j == pytest.approx(2 * 100 * 10, rel=0.01)
    rig.die()
    rig.boot()
    rig.run(2)
    assert job.show().boards == (A, B)


def test_who_waits_for_several_boards_is_not_passed_by_smaller_jobs(tmp_path: Path) -> None:
    rig = Rig(tmp_path, boards=(A, B))
    first = rig.running()
    wide, small = rig.submit(two_processes()), rig.submit(spec("small"))
    rig.run(2)
    assert wide.show().reason == "waits for 2 boards: 1 of 2 are free"
    assert small.show().state is JobState.QUEUED
    first.finish()
    rig.run(1)
    assert wide.show().state is JobState.RUNNING
    assert small.show().state is JobState.QUEUED
    rig.service.cancel(wide.id, ME)
    wide.finish("stopped")
    rig.run(1)
    assert small.show().state is JobState.RUNNING


@pytest.mark.parametrize(
    ("job", "says"),
    [
        (
            two_processes(processes=3),
            "train.processes: 3 take as many whole boards, this box has 2; give fewer",
        ),
        (
            two_processes(processes=None),
            "train.processes: is missing, 'ddp' takes several; give how many, each on a board of its own",
        ),
    ],
)
def test_more_boards_than_there_are_is_refused(tmp_path: Path, job: JobSpec, says: str) -> None:
    rig = Rig(tmp_path, boards=(A, B))
    with pytest.raises(InputError) as caught:
        rig.submit(job)
    assert str(caught.value) == says


def test_a_board_that_is_gone_keeps_no_other_job_waiting(tmp_path: Path) -> None:
    rig = Rig(tmp_path, boards=(A, B))
    wide = rig.submit(two_processes())
    rig.service.pause(wide.id, ME)
    rig.die()
    rig.boards = (A,)
    rig.boot()
    rig.service.resume(wide.id, ME)
    small = rig.submit(spec("small"))
    rig.run(1)
    assert wide.show().reason == "waits for 2 boards, this box has 1"
    assert small.show().state is JobState.RUNNING


def test_on_a_box_without_boards_processes_share_one_slot(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra=HOST_ALONE)
    job = rig.submit(two_processes())
    rig.run(1)
    assert rig.launcher.env[job.dir] == {"CUDA_VISIBLE_DEVICES": ""}
    with pytest.raises(InputError, match=r"train.parallel: 'fsdp2' takes boards, this box has none"):
        rig.submit(two_processes(parallel="fsdp2"))


def on_cpu(name: str = "small", **train: Any) -> JobSpec:
    job = spec(name)
    return job.model_copy(update={"train": job.train.model_copy(update={"device": "cpu", **train})})


def with_host(path: Path, **launch: Any) -> Rig:
    """A box with one board and a host that is metered."""
    power = {"gpu": "replay", "host": "auto", "replay_file": str(path / "watts.csv")}
    return Rig(path, extra={"power": power, "launch": launch})


def test_a_job_of_the_cpu_has_a_slot_of_its_own_beside_the_boards(tmp_path: Path) -> None:
    rig = with_host(tmp_path)
    board = rig.running()
    small, second, later = rig.submit(on_cpu()), rig.submit(on_cpu("second")), rig.submit(spec("later"))
    rig.run(1)
    assert rig.launcher.env[small.dir] == {"CUDA_VISIBLE_DEVICES": ""}
    small.started(device="cpu")
    rig.run(2)
    assert (board.show().state, small.show().state) == (JobState.RUNNING, JobState.RUNNING)
    assert (board.show().boards, small.show().boards) == (("replay-0", "host"), ("host",))
    assert (second.show().state, later.show().state) == (JobState.QUEUED, JobState.QUEUED)
    assert (second.show().starts_why or "").startswith(small.id), "it waits for the one on the CPU alone"
    board.finish()
    rig.run(1)
    assert (second.show().state, later.show().state) == (JobState.QUEUED, JobState.RUNNING)
    rig.die()
    rig.boot()
    rig.run(2)
    assert small.show().boards == ("host",)
    small.finish()
    rig.run(1)
    assert second.show().state is JobState.RUNNING


def test_a_box_without_boards_has_its_slots_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path, extra=HOST_ALONE)
    rig.running(on_cpu())
    other = rig.submit(spec("other"))
    rig.run(1)
    assert other.show().state is JobState.QUEUED
    assert "is before it" in (other.show().starts_why or "")


def test_a_job_of_the_cpu_is_refused_where_it_has_no_slot_or_no_meter(tmp_path: Path) -> None:
    rig = with_host(tmp_path / "a", cpu_slots=0)
    with pytest.raises(InputError, match=r"train.device: 'cpu' has no slot here: launch.cpu_slots is 0"):
        rig.submit(on_cpu())
    rig = Rig(tmp_path / "b")
    with pytest.raises(InputError, match=r"train.device: 'cpu' uses nothing that is metered here"):
        rig.submit(on_cpu())

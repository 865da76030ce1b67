"""Which board a job gets, what it is shown of the others, and what becomes of one that trains elsewhere."""

from pathlib import Path

import pytest
from support.rig import Rig

from carbonsched.model.job_state import JobState

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

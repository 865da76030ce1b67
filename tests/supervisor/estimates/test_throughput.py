"""How fast a box trains before it has: by the board's rating and the precision of matrix products, by what it did on such a board."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine
from support.rig import ME, START, Rig, spec

from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job import JobSpec, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.power.base import Device, Instance
from carbonsched.power.peak_flops import peak_flops
from carbonsched.supervisor.estimates.throughput import CPU_FLOPS_PER_CORE, RECENT_JOBS, estimate_throughput
from carbonsched.supervisor.jobs.actors import DAEMON


def board(name: str, cores: int, mhz: int, capability: tuple[int, int], watts: float) -> Device:
    peak = peak_flops(name, cores, mhz, capability)
    return Device("GPU-1", "gpu", name, watts_limit=watts, peak_flops=peak)


A100 = board("NVIDIA A100-SXM4-80GB", 6912, 1410, (8, 0), 400)
H100 = board("NVIDIA H100 80GB HBM3", 16896, 1980, (9, 0), 700)
L4 = board("NVIDIA L4", 7424, 2040, (8, 9), 72)
RTX_4090 = board("NVIDIA GeForce RTX 4090", 16384, 2520, (8, 9), 450)
T4 = board("Tesla T4", 2560, 1590, (7, 5), 70)
HOST = Device("host", "host", "EPYC", watts_limit=200.0)


def job(dtype: str = "fp32", **train: Any) -> JobSpec:
    document = spec().dump()
    return JobSpec.parse(
        document | {"model": {"name_or_path": "m", "dtype": dtype}, "train": document["train"] | train}
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Rig(tmp_path).ledger


@pytest.mark.parametrize(
    ("device", "fp32", "bf16"),
    [(A100, 19.5, 312), (H100, 67, 989), (L4, 30.3, 121), (RTX_4090, 82.6, 165), (T4, 8.1, 8.1)],
    ids=lambda x: x.name if isinstance(x, Device) else "",
)
def test_speed_is_a_share_of_the_boards_data_sheet(
    ledger: Ledger, device: Device, fp32: float, bf16: float
) -> None:
    """TFLOP/s as NVIDIA's data sheets give them, dense; bf16 is emulated before Ampere."""
    for wanted, rated, share in (
        (job(autocast="off"), fp32, 0.6),
        (job("bf16"), bf16, 0.4),
        (job(), bf16, 0.4) if bf16 > fp32 else (job(), fp32, 0.6),
        (job(autocast="bf16"), bf16, 0.4),
    ):
        found = estimate_throughput(ledger, (device,), wanted)
        assert found.flops_per_s == pytest.approx(rated * 1e12 * share, rel=0.12), found.source
        assert device.name in found.source


def test_a_board_that_tells_no_rating_is_guessed_by_its_limit(ledger: Ledger) -> None:
    small, large = (
        estimate_throughput(ledger, (Device("pdu-1", "gpu", "?", watts_limit=w),), job("bf16"))
        for w in (70, 700)
    )
    assert large.flops_per_s == pytest.approx(10 * small.flops_per_s)
    assert estimate_throughput(ledger, (Device("pdu-1", "gpu", "?"),), job()).watts == 300


def test_the_host_draws_too(ledger: Ledger) -> None:
    alone = estimate_throughput(ledger, (A100,), job()).watts
    assert estimate_throughput(ledger, (A100, HOST), job()).watts == pytest.approx(alone + 60)
    cpu = estimate_throughput(ledger, (HOST,), job(threads=1))
    assert cpu.flops_per_s == CPU_FLOPS_PER_CORE
    assert 20 <= cpu.watts <= 200, "its rated power times codecarbon's load, not so many watts a core"
    assert estimate_throughput(ledger, (), job(threads=3)).watts == 30


def test_an_instance_is_a_part_of_its_board(ledger: Ledger) -> None:
    split = replace(A100, split=True, instances=(Instance("MIG-1", 3), Instance("MIG-2", 4)))
    whole, part = (estimate_throughput(ledger, (device,), job()) for device in (A100, split))
    assert part.flops_per_s == pytest.approx(whole.flops_per_s / 2)
    assert part.watts == pytest.approx(whole.watts / 2)


def test_what_was_measured_counts_on_such_a_board_and_in_that_precision_alone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    played = rig.running()
    for k in range(4):
        for _ in played.play(k):
            pass
    played.finish()
    mine = rig.meter.devices
    assert "measured on this box with this model" in estimate_throughput(rig.ledger, mine, job()).source
    other = estimate_throughput(rig.ledger, mine, job(autocast="bf16"))
    assert other.source.startswith("assumed"), (
        "a board whose speeds are not known takes bf16 where it is told to"
    )
    assert estimate_throughput(rig.ledger, (A100,), job()).source.startswith("assumed")
    assert estimate_throughput(rig.ledger, (HOST,), job()).source.startswith("assumed for")


def test_an_estimate_asks_no_more_of_many_jobs_than_of_few(tmp_path: Path) -> None:
    """It is made with the supervisor's lock held: each job that never ran on such a board was once a query of its own."""
    asked: dict[int, int] = {}
    for jobs in (2, RECENT_JOBS + 5):
        ledger = Rig(tmp_path / str(jobs)).ledger
        for n in range(jobs):
            add(ledger, f"old-{n}", boards=[f"GPU-gone-{n % 3}"])
        asked[jobs] = len(queries(lambda ledger=ledger: estimate_throughput(ledger, (A100, HOST), job())))
    assert asked[RECENT_JOBS + 5] == asked[2] <= 3, asked


def add(ledger: Ledger, job_id: str, boards: list[str]) -> None:
    """A job that started on these boards."""
    submitted = SubmittedJob(id=job_id, spec=job(), owner=ME, submitted_at=START, sha256="")
    ledger.add_job(submitted)
    ledger.set_state(job_id, JobState.RUNNING, "started", DAEMON, START)
    ledger.note(job_id, "started", {"boards": boards, "events": 0, "names": {}, "cpus": 2}, DAEMON, START)


def queries(work: Callable[[], object]) -> list[str]:
    """What it asks of a database."""
    found: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    return [statement for statement in found if statement.startswith("SELECT")]

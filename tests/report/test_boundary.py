"""What a report's energy is of: named by the meters of its rows, never called the plug's."""

from pathlib import Path

from support.job_history import GPU, T0, interval, submitted

from carbonsched.ledger import Ledger
from carbonsched.model.energy import EnergyMethod
from carbonsched.report import build, render
from carbonsched.report.boundary import boundary


def test_parts_that_no_meter_read_are_said_to_be_outside() -> None:
    only = boundary([("GPU-1", "nvml"), ("GPU-2", "nvml")])
    assert only.inside == ("2 boards (nvml)",)
    assert {"CPU", "RAM", "fans", "losses of the power supply"} <= set(only.outside)
    whole = boundary([("host", "codecarbon:cpu_load+ram=6W")])
    assert whole.inside == ("CPU (cpu_load)", "RAM, taken to draw 6 W")
    assert not {"CPU", "RAM"} & set(whole.outside)
    assert boundary([]).inside == ()


def test_a_foreign_process_on_a_jobs_board_is_declared(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        row = interval(T0, 10, 5_000, job_id="scitldr-1")
        reason = "not a job's alone: process 4711 (python) computes on it"
        update = {"reason": reason, "method": EnergyMethod.ESTIMATED, "meter": "nvml"}
        ledger.append([row.model_copy(update={"delta": row.delta.model_copy(update=update)})])
        report = build(ledger, "scitldr-1", now=T0)
        page = render(report, ledger, "html")
    assert report.boundary.inside == ("1 board (nvml)",)
    assert any(
        note.startswith(f"5 J of {GPU} were charged to our jobs while a process") for note in report.notes
    )
    assert "losses of the power supply" in page

"""The commands against the real daemon, the real trainer and a tiny model: documents, exit codes, what people see."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.daemon import DaemonProcess
from support.models import tiny_llama, tiny_spec, word_data

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
pytestmark = pytest.mark.slow


def check(name: str, document: Any) -> Any:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(document)
    return document


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    running = DaemonProcess(tmp_path_factory.mktemp("box")).start()
    yield running
    running.stop()
    for folder in (running.root / "state" / "jobs").iterdir():
        # a test that failed may have left a job that would wait for its daemon for ever
        if (folder / "run.json").exists() and not (folder / "exit.json").exists():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(json.loads((folder / "run.json").read_text())["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def job(daemon: DaemonProcess) -> Path:
    spec = tiny_spec(tiny_llama(daemon.root / "model"), word_data(daemon.root / "data"))
    lines = [f'name = "{spec["name"]}"']
    for part in ("model", "data", "train", "carbon"):
        lines.append(f"[{part}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in spec[part].items()]
    path = daemon.root / "job.toml"
    # relative, as people write it: the trainer runs elsewhere
    path.write_text(("\n".join(lines) + "\n").replace(f"{daemon.root}/", ""))
    return path


def test_a_job_from_submission_to_report(daemon: DaemonProcess, job: Path, tmp_path: Path) -> None:
    done = daemon.cli("submit", str(job), "--wait", "--json")
    ended = check("acted", json.loads(done.stdout))
    assert ended["state"] == "finished"
    name = ended["id"]
    detail = check("job-detail", daemon.json("show", name))
    assert len(detail["segments_done"]) == 3
    assert check("job-list", daemon.json("ps"))["jobs"][0]["id"] == name
    check("grid-view", daemon.json("grid"))
    check("version", daemon.json("version"))
    check("job-log", daemon.json("logs", name))
    assert check("audit-result", daemon.json("audit", "verify"))["ok"]
    url = f"sqlite:///{daemon.root / 'state' / 'ledger.db'}"
    assert check("audit-result", daemon.json("audit", "verify", "--ledger", url))["ok"]
    report = check("report", daemon.json("report", "--job", name))
    assert report["job_id"] == name
    for form in ("csv", "html", "codecarbon"):
        daemon.cli("report", "--job", name, "--format", form, "-o", str(tmp_path / form))
        assert (tmp_path / form).stat().st_size > 100
    for event in (daemon.root / "state" / "jobs" / name / "events.jsonl").read_text().splitlines():
        check("event", json.loads(event))
    folder = daemon.root / "state" / "jobs" / name
    for file, schema in (
        ("spec", "submitted-job"),
        ("control", "directive"),
        ("run", "run-record"),
        ("exit", "exit-record"),
    ):
        check(schema, json.loads((folder / f"{file}.json").read_text()))
    text = daemon.cli("show", name).stdout
    assert "finished" in text
    assert "HISTORY" in text
    assert "replay" in daemon.cli("grid").stdout
    assert daemon.cli("wait", name).returncode == 0
    assert daemon.cli("resume", name, check=False).returncode == 1


def test_a_job_is_explained_then_its_budget_raised_while_it_runs(daemon: DaemonProcess, job: Path) -> None:
    before = daemon.json("ps")
    told = check("explained", daemon.json("submit", str(job), "--explain"))
    assert told["estimated"]
    assert [s["k"] for s in told["segments"]] == [0, 1, 2]
    assert told["low_g"] <= told["g"] <= told["high_g"]
    assert daemon.json("ps") == before, "nothing was queued"
    name = daemon.json("submit", str(job))["id"]
    daemon.until(name, lambda row: row["state"] == "running")
    set_to = check("budgeted", daemon.json("budget", name, "--grams", "77"))
    assert set_to["budget_g"] == 77.0
    assert daemon.cli("wait", name).returncode == 0
    assert daemon.json("report", "--job", name)["job"]["budget_changes"][-1]["budget_g"] == 77.0
    closed = daemon.cli("budget", name, "--grams", "78", check=False)
    assert closed.returncode == 1
    assert "its budget is closed" in closed.stderr
    assert daemon.json("audit", "verify")["ok"]


def test_what_the_trainer_refuses_is_told_in_its_line(daemon: DaemonProcess, job: Path) -> None:
    wrong = job.with_name("wrong.toml")
    wrong.write_text(job.read_text() + "rho_min = 0.05\n")
    before = daemon.json("ps")
    refused = daemon.cli("submit", str(wrong), "--json", check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("carbonsched: carbon.rho_min: 0.05 is below")
    assert refused.stderr.count("\n") == 1
    assert daemon.json("ps") == before


def test_job_cancelled_while_it_runs_is_5(daemon: DaemonProcess, job: Path) -> None:
    submitted = check("submitted", daemon.json("submit", str(job)))
    daemon.until(submitted["id"], lambda row: row["state"] == "running")
    check("acted", daemon.json("cancel", submitted["id"]))
    assert daemon.cli("wait", submitted["id"], check=False).returncode == 5


def test_second_daemon_is_refused_in_one_line(daemon: DaemonProcess) -> None:
    second = daemon.cli("daemon", "--config", str(daemon.root / "config.toml"), check=False)
    assert second.returncode in (1, 2)
    assert second.stderr.count("\n") == 1, second.stderr
    assert daemon.cli("ps").returncode == 0

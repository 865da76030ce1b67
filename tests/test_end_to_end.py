"""Daemon, shim and trainer as real processes over the real socket: what a user does, and what kill -9 does to it."""

import json
import os
import re
import signal
import sqlite3
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from support.daemon import CONFIG, DaemonProcess
from support.models import tiny_llama, tiny_spec, tiny_t5, word_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("material")
    return tiny_llama(folder / "model"), word_data(folder / "data", train=64)


def end(daemon: DaemonProcess) -> None:
    for job in daemon.json("ps")["jobs"] if daemon.process and daemon.process.poll() is None else []:
        if job["state"] in ("running", "waiting", "queued"):
            daemon.cli("cancel", job["id"], check=False)
            daemon.until(job["id"], lambda j: j["state"] == "cancelled")
    daemon.stop()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path / "box").start()
    yield daemon
    end(daemon)


@pytest.fixture
def two_boards(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path / "box", TWO_BOARDS).start()
    yield daemon
    end(daemon)


def write_job(folder: Path, material: tuple[Path, Path], **parts: dict[str, Any]) -> Path:
    train = {"segment": 60, "epochs": 20, "max_steps": 240, "keep_checkpoints": 1} | parts.pop("train", {})
    carbon = {"budget_g": 5.0, "may_pause": False} | parts.pop("carbon", {})
    spec = tiny_spec(*material, train=train, carbon=carbon, **parts)
    file = folder / "job.toml"
    file.write_text(tomli_w.dumps(spec))
    return file


def conserved(box: DaemonProcess) -> list[dict[str, Any]]:
    """The ledger's rows, after checking that they follow each other and add up to the counters' difference."""
    connection = sqlite3.connect(f"file:{box.root}/state/ledger.db?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    rows = [dict(row) for row in connection.execute("select * from intervals order by id")]
    connection.close()
    for board in {row["board"] for row in rows}:
        of_board = [row for row in rows if row["board"] == board]
        for before, after in pairwise(of_board):
            assert after["counter_start_mj"] == before["counter_end_mj"], "lost or counted twice"
            assert after["start_us"] == before["end_us"]
        total = of_board[-1]["counter_end_mj"] - of_board[0]["counter_start_mj"]
        assert sum(row["energy_mj"] for row in of_board) == total
    return rows


def test_a_job_runs_under_its_budget_and_is_reported(
    box: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    done = box.cli("submit", str(write_job(tmp_path, material)), "--wait", "--json")
    job_id = json.loads(done.stdout)["id"]
    job = box.json("show", job_id)
    assert job["state"] == "finished", job["reason"]
    assert job["spent_g"] <= job["budget_g"]
    assert [segment["k"] for segment in job["segments_done"]] == [0, 1, 2, 3]
    for segment in job["segments_done"]:
        assert segment["rho_directed"] >= segment["rho_planned"] - 1e-9
        assert abs(segment["rho_realised"] - segment["rho_planned"]) <= 0.01
        assert segment["power_w"] == pytest.approx(100, rel=0.05)
    assert [event["when"] for event in job["validation"]] == ["before", "after"]
    assert job["validation"][1]["loss"] < job["validation"][0]["loss"]
    report = box.json("report", "--job", job_id, "--format", "json")
    assert report
    page = box.cli("report", "--job", job_id, "--format", "html").stdout
    assert "<svg" in page
    assert "synthetic" in page
    assert box.json("audit", "verify")["ok"]
    url = f"sqlite:///{box.root}/state/ledger.db"
    assert box.json("audit", "verify", "--ledger", url, "--export", str(tmp_path / "export"))["ok"]
    assert (tmp_path / "export" / "intervals.tsv").stat().st_size > 1000
    rows = conserved(box)
    assert {row["job_id"] for row in rows} == {None, job_id}
    assert (box.root / "state" / "jobs" / job_id / "output" / "model.safetensors").exists()


def test_auto_trains_in_the_setting_that_the_daemon_chose_and_says_why(
    box: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    train = {"method": "auto", "segment": 20, "max_steps": 60}
    job_id = box.json("submit", str(write_job(tmp_path, material, train=train, carbon={"rho_max": 0.72})))[
        "id"
    ]
    job = box.until(job_id, lambda job: job["state"] not in ("running", "waiting", "queued"))
    assert job["state"] == "finished", job["reason"]
    events = (box.root / "state" / "jobs" / job_id / "events.jsonl").read_text().splitlines()
    done = [e for e in map(json.loads, events) if e["event"] == "segment_done"]
    offered = {e["k"]: e["points"] for e in map(json.loads, events) if e["event"] == "segment_ready"}
    assert len(done) == 3
    for told, segment in zip(done, job["segments_done"], strict=True):
        points = [(p["setting"], p["rho"]) for p in offered[told["k"]]]
        assert (told["setting"], told["rho_directed"]) in points, "a real point, as it was offered"
        assert told["rho_realised"] == pytest.approx(told["rho_directed"], abs=0.05)
        assert told["rho_directed"] <= 0.72
        named = "tensors" if told["setting"]["method"] == "greentrainer" else told["setting"]["method"]
        assert segment["reason"].startswith(f"auto: {named} at ")


def events_of(box: DaemonProcess, job_id: str, kind: str) -> list[dict[str, Any]]:
    lines = (box.root / "state" / "jobs" / job_id / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def over(box: DaemonProcess, job_id: str) -> dict[str, Any]:
    job = box.until(job_id, lambda job: job["state"] not in ("running", "waiting", "queued"))
    assert job["state"] == "finished", job["reason"]
    assert job["spent_g"] <= job["budget_g"]
    return job


def test_a_job_of_tokens_trains_a_part_of_the_tokens_and_then_the_next_one_is_foretold_in_nats(
    box: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    """`--explain` before any loss of this model and data is known, and after."""
    train = {"method": "tokens", "segment": 20, "max_steps": 60}
    file = write_job(tmp_path, material, train=train, carbon={"rho_max": 0.65})
    before = " ".join(box.cli("submit", str(file), "--explain").stdout.split())
    assert "5 g: expected loss" in before, before
    assert "of the loss before training (estimated: no loss of this model and data is known here" in before
    assert box.json("ps")["jobs"] == [], "nothing was queued"
    job_id = box.json("submit", str(file))["id"]
    over(box, job_id)
    done = events_of(box, job_id, "segment_done")
    assert len(done) == 3
    for segment in done:
        assert segment["gradient_share"] < 1
        assert segment["rho_planned"] <= segment["rho_directed"] <= 0.65
        assert segment["rho_realised"] == pytest.approx(segment["rho_planned"], abs=0.01)
    seen = events_of(box, job_id, "evaluated")[-1]["loss"]
    after = " ".join(box.cli("submit", str(file), "--explain").stdout.split())
    found = re.search(r"5 g: expected loss ([\d.]+) ± ([\d.]+); at 2.5 g [\d.]+ ± [\d.]+ nats a token", after)
    assert found, after
    assert abs(float(found[1]) - seen) <= float(found[2]) + 0.01, "it would come to what it has come to"
    assert "(estimated: 1 earlier job of this model and data)" in after


def test_a_job_whose_steps_the_daemon_decides_ends_annealed_when_its_budget_does(
    box: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    train = {"method": "full", "scheduler": "budget", "segment": 100}
    file = write_job(tmp_path, material, train=train)
    spec = tomllib.loads(file.read_text())
    del spec["train"]["epochs"], spec["train"]["max_steps"]
    file.write_text(tomli_w.dumps(spec))
    job_id = box.json("submit", str(file))["id"]
    begun = box.until(job_id, lambda job: (job["step"] or 0) > 20)
    assert (begun["steps"], begun["phase"]) == (None, "stable")
    budget_g = begun["spent_g"] + 12 * 100 * 1.2 * 400 / 3.6e6  # about twelve seconds more
    box.cli("budget", job_id, "--grams", f"{budget_g:.6f}")
    job = over(box, job_id)
    rates = [event["lr"] for event in events_of(box, job_id, "step")]
    assert rates[-1] < 0.5 * max(rates), "annealed"
    assert events_of(box, job_id, "segment_done")[-1]["phase"] == "cooldown"
    assert job["spent_g"] > 0.6 * budget_g
    assert events_of(box, job_id, "finished")[-1]["reason"] == "done"


def test_auto_takes_adapters_where_they_bring_most_and_keeps_them_to_the_end(
    box: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    """An encoder-decoder's rows cannot run in two parts, and ρ is bounded below all of it: tensors or adapters."""
    model = tiny_t5(tmp_path / "t5")
    train = {"method": "auto", "segment": 20, "max_steps": 60, "lora_rank": 1}
    file = write_job(tmp_path, (model, material[1]), train=train, carbon={"rho_max": 0.95})
    told = box.json("submit", str(file), "--explain")
    assert told["reason"].startswith("auto: lora "), told["reason"]
    job_id = box.json("submit", str(file))["id"]
    job = over(box, job_id)
    offered = events_of(box, job_id, "segment_ready")
    assert "lora" in {point["setting"]["method"] for point in offered[0]["points"]}
    assert "tokens" not in {point["setting"]["method"] for point in offered[0]["points"]}
    done = events_of(box, job_id, "segment_done")
    assert [segment["setting"]["method"] for segment in done] == ["lora"] * 3
    assert {point["setting"]["method"] for point in offered[1]["points"]} == {"lora"}, "it stays with them"
    assert job["segments_done"][0]["reason"].startswith("auto: lora ")
    output = box.root / "state" / "jobs" / job_id / "output"
    assert (output / "model.safetensors").exists(), "merged"
    assert (output / "adapter" / "adapter_model.safetensors").exists()


def test_kill_9_of_the_daemon_loses_no_energy_and_no_job(
    box: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    job_file = write_job(tmp_path, material, train={"segment": 300, "max_steps": 1500, "epochs": 120})
    job_id = box.json("submit", str(job_file))["id"]
    box.until(job_id, lambda job: job["segment"] == 2 and (job["step"] or 0) > 610)
    pid = json.loads((box.root / "state" / "jobs" / job_id / "run.json").read_text())["pid"]
    box.kill()
    os.kill(pid, 0)  # the job lives on
    box.start()
    job = box.until(job_id, lambda job: job["state"] not in ("running", "waiting"))
    assert job["state"] == "finished", job["reason"]
    assert [segment["k"] for segment in job["segments_done"]] == [0, 1, 2, 3, 4]
    assert json.loads((box.root / "state" / "jobs" / job_id / "run.json").read_text())["pid"] == pid
    page = box.cli("report", "--job", job_id, "--format", "html").stdout
    assert "bridged" in page
    rows = conserved(box)
    assert any(row["bridged"] for row in rows)
    assert box.json("audit", "verify")["ok"]


def test_kill_9_of_the_job_and_resume_keeps_what_was_wasted_on_its_account(
    box: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    job_file = write_job(tmp_path, material, train={"segment": 300, "max_steps": 900, "epochs": 120})
    job_id = box.json("submit", str(job_file))["id"]
    box.until(job_id, lambda job: job["segment"] == 1 and (job["step"] or 0) > 310)
    shim = json.loads((box.root / "state" / "jobs" / job_id / "run.json").read_text())["pid"]
    [trainer] = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
    os.kill(int(trainer), signal.SIGKILL)
    killed = box.until(job_id, lambda job: job["state"] == "failed")
    assert "killed by signal 9" in killed["reason"]
    box.cli("resume", job_id)
    job = box.until(job_id, lambda job: job["state"] == "finished")
    assert [segment["k"] for segment in job["segments_done"]] == [0, 1, 2]
    events = (box.root / "state" / "jobs" / job_id / "events.jsonl").read_text().splitlines()
    starts = [e["first_step"] for e in map(json.loads, events) if e["event"] == "started"]
    assert starts == [0, 300], "it went on from the checkpoint of segment 0"
    assert job["energy_j"] > killed["energy_j"]
    rows = conserved(box)
    mine = sum(row["energy_mj"] for row in rows if row["job_id"] == job_id)
    assert mine / 1000 == pytest.approx(job["energy_j"], abs=0.01), "the wasted joules are still there"


BAD: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "budget 0": ({"carbon": {"budget_g": 0}}, "carbon.budget_g"),
    "budget negative": ({"carbon": {"budget_g": -3.5}}, "carbon.budget_g"),
    "budget nan": ({"carbon": {"budget_g": float("nan")}}, "carbon.budget_g"),
    "rho_min below the floor": ({"carbon": {"rho_min": 0.2}}, "carbon.rho_min"),
    "unknown method": ({"train": {"method": "greentrainr"}}, "did you mean 'greentrainer'"),
    "missing data": ({"data": {"name_or_path": "./nowhere.jsonl"}}, "data.name_or_path"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_job_is_refused_in_one_line_and_leaves_nothing(
    refusing: DaemonProcess, tmp_path: Path, material: tuple[Path, Path], case: str
) -> None:
    parts, expected = BAD[case]
    refused(refusing, write_job(tmp_path, material, **parts), expected)


def test_a_broken_line_of_data_is_named(
    refusing: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    data = word_data(tmp_path / "data", train=16)
    lines = (data / "train.jsonl").read_text().splitlines()
    lines[6] = lines[6][:-5]
    (data / "train.jsonl").write_text("\n".join(lines) + "\n")
    refused(refusing, write_job(tmp_path, (material[0], data)), "line 7")


def test_a_model_folder_without_weights_is_refused(
    refusing: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    model = tiny_llama(tmp_path / "model")
    for weights in model.glob("*.safetensors"):
        weights.unlink()
    refused(refusing, write_job(tmp_path, (model, material[1])), "weights")


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path_factory.mktemp("refusing")).start()
    yield daemon
    daemon.stop()


def refused(box: DaemonProcess, job: Path, expected: str) -> None:
    done = box.cli("submit", str(job), "--json", check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert expected in done.stderr
    assert box.json("ps")["jobs"] == []
    assert list((box.root / "state" / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("tick_s", "tik_s"), "did you mean 'tick_s'"),
        (("trace.csv", "disordered.csv"), "line 4"),
    ],
)
def test_a_bad_config_is_refused_in_one_line(tmp_path: Path, change: tuple[str, str], expected: str) -> None:
    box = DaemonProcess(tmp_path / "box")
    lines = (box.root / "trace.csv").read_text().splitlines()
    lines[2], lines[3] = lines[3], lines[2]
    (box.root / "disordered.csv").write_text("\n".join(lines) + "\n")
    (box.root / "config.toml").write_text(box.config.replace(*change))
    done = box.cli("daemon", "--config", str(box.root / "config.toml"), check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert expected in done.stderr


TWO_BOARDS = CONFIG.replace('replay_file = "watts.csv"', 'replay_file = "watts.csv"\nreplay_boards = 2')


def of_the_job(box: DaemonProcess, job_id: str) -> list[str]:
    """Command lines of what runs for a job."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(box.root / "state" / "jobs" / job_id) in line:
                found.append(line)
    return found


@pytest.mark.timeout(2400)
def test_two_processes_train_on_two_boards_through_pause_death_and_resume(
    two_boards: DaemonProcess, tmp_path: Path, material: tuple[Path, Path]
) -> None:
    box = two_boards
    several = {"parallel": "ddp", "processes": 2, "segment": 250, "max_steps": 1000, "epochs": 1000}
    wide = write_job(tmp_path, material, train=several, carbon={"budget_g": 500.0})
    job_id = box.json("submit", str(wide))["id"]
    behind = box.json("submit", str(write_job(tmp_path, material)))["id"]
    job = box.until(job_id, lambda j: j["segments_over"] > 0)
    assert job["boards"] == ["replay-0", "replay-1"]
    assert job["power_w"] == pytest.approx(200, rel=0.05), "both boards are its own"
    assert box.get(f"/v1/jobs/{behind}")["state"] == "queued"
    box.cli("pause", behind, job_id)
    box.until(job_id, lambda j: j["state"] == "paused")
    assert of_the_job(box, job_id) == []
    box.cli("resume", job_id)
    box.until(job_id, lambda j: j["state"] == "running" and j["segments_over"] > job["segments_over"])
    box.kill()
    box.start()
    resumed = box.until(job_id, lambda j: j["state"] == "running" and j["power_w"] is not None)
    assert resumed["boards"] == ["replay-0", "replay-1"], "adopted with both"
    lines = {line for line in of_the_job(box, job_id) if "-m trainer run" in line and "torch" not in line}
    assert len(lines) == 3, "the ranks of one command line, who started them, and the shim"
    rank = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal()
        and b"LOCAL_RANK=1" in environ_of(entry)
        and job_id.encode() in environ_of(entry)
    )
    os.kill(rank, signal.SIGKILL)
    failed = box.until(job_id, lambda j: j["state"] == "failed")
    assert "another process of this training died" in failed["reason"]
    assert of_the_job(box, job_id) == []
    box.cli("resume", job_id)
    ended = box.until(job_id, lambda j: j["state"] == "finished", timeout=900)
    assert ended["spent_g"] <= ended["budget_g"]
    assert [segment["k"] for segment in ended["segments_done"]] == [*range(4)]
    box.cli("cancel", behind)
    assert box.stop() == 0
    rows = conserved(box)
    mine: dict[str, int] = {}
    for row in rows:
        if row["job_id"] == job_id:
            mine[row["board"]] = mine.get(row["board"], 0) + row["energy_mj"]
    assert sum(mine.values()) == pytest.approx(ended["energy_j"] * 1000, abs=1)
    assert mine["replay-0"] == pytest.approx(mine["replay-1"], rel=0.05)


def environ_of(entry: Path) -> bytes:
    try:
        return (entry / "environ").read_bytes()
    except OSError:
        return b""

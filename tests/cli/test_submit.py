"""Submitting: the job file, the trainer's look at it, and what reaches the daemon."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from support.box import JOB_TOML, Box
from support.command import cli

from carbonsched.model.job_state import JobState
from carbonsched.model.views import Acted, Budgeted, Explained, Submitted

CHECKED = {
    "ok": True,
    "model": "m",
    "params": 134_515_008,
    "rows": 128,
    "validation_rows": 8,
    "steps": 160,
    "segments": 5,
    "rho_floor": 0.401,
    "step_flops_full": 1e12,
    "batch": 4,
    "seq": 128,
    "removals": [
        {"what": "head", "on": False, "text": "the output embeddings run on every token"},
        {"what": "padding", "on": True, "text": "rows of like length share a batch"},
    ],
    "notes": ["validation is small"],
}


def trainer(folder: Path, body: str) -> str:
    """An interpreter whose `-m trainer check SPEC --json` does what `body` (shell; $4 is SPEC) says."""
    path = folder / "trainer-python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(JOB_TOML)
    return path


@pytest.fixture
def content(box: Box, tmp_path: Path) -> Path:
    """The box has a trainer that accepts every job and keeps what it was asked."""
    kept = tmp_path / "asked.json"
    box.trainer_python = trainer(
        tmp_path, f"cp \"$4\" {kept}; pwd > {kept}.cwd; echo '{json.dumps(CHECKED)}'"
    )
    return kept


def test_accepted_job_reaches_the_daemon(box: Box, socket: Path, job: Path, content: Path) -> None:
    ran = cli("submit", job, "--json", socket=socket)
    assert (ran.code, ran.err) == (0, "")
    submitted = Submitted.parse(ran.doc)
    entry = box.entries[submitted.id]
    assert entry.owner.uid == os.getuid()
    assert json.loads(content.read_text()) == entry.spec.dump()
    people = cli("submit", job, socket=socket)
    assert people.out.endswith(" queued\n")
    assert people.err == "note: validation is small\n"


def test_labels_of_options_reach_the_daemon(box: Box, socket: Path, job: Path, content: Path) -> None:
    job.write_text(f'labels = {{ project = "thesis" }}\n{JOB_TOML}')
    ran = cli("submit", job, "--label", "cost_centre=4711", "-l", "a.b=x=y", "--json", socket=socket)
    labels = {"project": "thesis", "cost_centre": "4711", "a.b": "x=y"}
    assert box.entries[ran.doc["id"]].spec.labels == labels
    for wrong in ("project", "=x", "a b=c", "a="):
        refused = cli("submit", job, "--label", wrong, socket=socket)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert "label" in refused.err


def test_check_leaves_nothing_behind_and_runs_in_an_empty_folder(
    socket: Path, job: Path, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cli("submit", job, socket=socket)
    stood = Path(content.with_name("asked.json.cwd").read_text().strip())
    assert stood.parent == tmp_path
    assert not stood.exists()


def test_job_the_trainer_refuses_is_not_queued(box: Box, socket: Path, job: Path, tmp_path: Path) -> None:
    said = "carbon.rho_min: 0.2 is below this model's floor 0.401; set it to 0.401 or more"
    box.trainer_python = trainer(tmp_path, f'echo "loading" >&2; echo "{said}" >&2; exit 2')
    ran = cli("submit", job, "--json", socket=socket)
    assert (ran.code, ran.out, ran.err) == (2, "", f"carbonsched: {said}\n")
    assert box.entries == {}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo 'No module named trainer' >&2; exit 1", "exit code 1: No module named trainer"),
        ("exit 1", "no message"),
        ("echo not json", "install the same version"),
    ],
)
def test_trainer_that_is_broken_is_1(
    body: str, says: str, box: Box, socket: Path, job: Path, tmp_path: Path
) -> None:
    box.trainer_python = trainer(tmp_path, body)
    ran = cli("submit", job, socket=socket)
    assert ran.code == 1
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert box.entries == {}


def test_interpreter_that_is_not_there_names_the_config_key(box: Box, socket: Path, job: Path) -> None:
    box.trainer_python = "/no/such/python"
    ran = cli("submit", job, socket=socket)
    assert ran.code == 1
    assert "launch.python" in ran.err
    box.trainer_python = None
    assert "launch.python" in cli("submit", job, socket=socket).err


def test_explain_queues_nothing_and_says_what_binds(box: Box, socket: Path, job: Path, content: Path) -> None:
    ran = cli("submit", job, "--explain", "--json", socket=socket)
    assert (ran.code, ran.err) == (0, "")
    told = Explained.parse(ran.doc)
    assert told.estimated
    assert len(told.segments) == CHECKED["segments"]
    people = cli("submit", job, "--explain", socket=socket)
    assert people.code == 0
    for text in (
        "trains at once",
        "ρ from 0.401",
        "0.600",
        "~100 g, likely 80 g to 121 g",
        "the budget, the guard",
        "gram buys 0.4% of the whole job's gain",
        "assumed: 1e14 FLOP/s",
        "validation is small",
        "remains: the output embeddings run on every token",
        "left out: rows of like length share a batch",
        "nothing was queued",
    ):
        assert text in people.out, people.out
    assert box.entries == {}
    both = cli("submit", job, "--explain", "--wait", socket=socket)
    assert (both.code, both.out) == (2, "")
    assert "--explain" in both.err


def test_budget_is_changed_and_told(box: Box, socket: Path) -> None:
    entry = box.add(uid=os.getuid())
    ran = cli("budget", entry.id, "--grams", "150", socket=socket)
    assert ran.code == 0
    assert "budget 150 g, was 120 g, spent 0 g" in ran.out
    again = cli("budget", entry.id, "--grams", "151.5", "--json", socket=socket)
    assert Budgeted.parse(again.doc).from_g == 150.0
    for wrong in ("0", "-3", "nan", "inf"):
        refused = cli("budget", entry.id, "--grams", wrong, socket=socket)
        assert (refused.code, refused.out) == (2, "")
        assert "--grams: must be above 0" in refused.err
    assert cli("budget", "nope", "--grams", "1", socket=socket).code == 2
    assert cli("budget", entry.id, socket=socket).code == 2


def test_wait_gives_one_document_and_the_outcomes_code(
    box: Box, socket: Path, job: Path, content: Path
) -> None:
    def act() -> None:
        while not box.entries:
            time.sleep(0.01)
        entry = next(iter(box.entries.values()))
        box.go(entry, JobState.RUNNING)
        box.go(entry, JobState.STOPPED, "budget below floor, needs 14.2 g, has 9.8 g")

    thread = threading.Thread(target=act)
    thread.start()
    ran = cli("submit", job, "--wait", "--json", socket=socket)
    thread.join()
    assert ran.code == 6
    assert Acted.parse(ran.doc).reason == "budget below floor, needs 14.2 g, has 9.8 g"


def test_ctrl_c_during_the_check_leaves_nothing(box: Box, socket: Path, job: Path, tmp_path: Path) -> None:
    started, scratch = tmp_path / "started", tmp_path / "scratch"
    scratch.mkdir()
    box.trainer_python = trainer(tmp_path, f"touch {started}; exec sleep 30")
    submitting = subprocess.Popen(
        [sys.executable, "-m", "carbonsched", "submit", job, "--socket", socket],
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(scratch)},
        start_new_session=True,
    )
    while not started.exists():
        time.sleep(0.02)
    os.killpg(submitting.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, err = submitting.communicate(timeout=10)
    assert submitting.returncode == 130
    assert b"Traceback" not in err
    assert list(scratch.iterdir()) == []
    assert box.entries == {}


def test_file_that_cannot_be_read_is_bad_input_before_the_daemon_is_asked(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", tmp_path):
        ran = cli("submit", path, socket=tmp_path / "none")
        assert (ran.code, ran.out) == (2, "")
        assert "JOB.toml" in ran.err


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('method = "dropbp"\ncompile = true', "job.toml: train.compile: each step drops other branches"),
        (
            'method = "galore"',
            "job.toml: train.method: 'galore' is no method of this installation; did you mean",
        ),
        ('parallel = "fsdp2"\ncache = "memory"', "job.toml: train.cache: cannot be had with parallel"),
    ],
)
def test_settings_at_odds_are_refused_without_the_trainer(
    socket: Path, job: Path, content: Path, lines: str, says: str
) -> None:
    job.write_text(JOB_TOML.replace("[carbon]", f"[train]\n{lines}\n[carbon]"))
    ran = cli("submit", job, socket=socket)
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert not content.exists(), "the trainer was not started"


@pytest.mark.parametrize(
    "body", ["print('hello')", "raise SystemExit(2)", "raise RuntimeError('not ours')", "import argparse"]
)
def test_another_trainer_is_named_with_the_mend(
    box: Box, socket: Path, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    theirs = tmp_path / "theirs" / "trainer.py"
    theirs.parent.mkdir()
    theirs.write_text(body + "\n")
    monkeypatch.setenv("PYTHONPATH", str(theirs.parent))
    box.trainer_python = sys.executable
    ran = cli("submit", job, socket=socket)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.count("\n") == 1
    assert f"finds another trainer, {theirs}, which hides carbonsched's; rename that file" in ran.err
    assert box.entries == {}


def test_a_trainer_where_the_user_stands_is_not_seen(
    box: Box, socket: Path, job: Path, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trainer.py").write_text("raise SystemExit(2)\n")
    monkeypatch.chdir(tmp_path)
    assert cli("submit", job, socket=socket).code == 0


def test_from_stdin_with_values_set_over_it(
    box: Box, socket: Path, content: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(JOB_TOML))
    sets = [
        "train.lr=1e-4",
        "train.weight_decay=.5",
        "carbon.deadline=36h",
        "carbon.may_pause=false",
        "name=again",
    ]
    ran = cli("submit", "-", *(f"--set={one}" for one in sets), "--json", socket=socket)
    assert ran.code == 0, ran.err
    spec = box.entries[ran.doc["id"]].spec
    assert (spec.name, spec.train.lr, spec.carbon.deadline, spec.carbon.may_pause) == (
        "again",
        1e-4,
        129_600,
        False,
    )
    assert json.loads(content.read_text())["train"]["lr"] == 1e-4, "the trainer checked what is submitted"


def test_without_a_file(
    box: Box, socket: Path, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path)
    given = ["--model", "org/SmolLM2-135M", "--data", "rows.jsonl", "--budget-g", "80", "--method", "lora"]
    ran = cli("submit", *given, "--json", socket=socket)
    assert ran.code == 0, ran.err
    spec = box.entries[ran.doc["id"]].spec
    assert spec.name == "rows-smollm2-135m"
    assert (spec.data.name_or_path, spec.train.method) == (str(tmp_path / "rows.jsonl"), "lora")
    assert spec.carbon.budget_g == 80


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--model", "org/m"], "nor --data"),
        ([], "nor --model and --data"),
        (["--set", "lr"], "--set: 'lr' is no KEY=VALUE"),
        (["--set", "train.lrr=1"], "did you mean 'lr'"),
        (["--set", "carbon.budget_g.x=1"], "budget_g is no table"),
        (["--set", "train.lr=fast"], "train.lr"),
        (["--budget-g", "-1"], "--budget-g: must be above 0"),
        (["--method", "loar"], "did you mean 'lora'"),
    ],
)
def test_options_that_cannot_be_meant(
    argv: list[str], says: str, socket: Path, job: Path, content: Path
) -> None:
    file = [] if argv in ([], ["--model", "org/m"]) else [str(job)]
    ran = cli("submit", *file, *argv, socket=socket)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.strip().splitlines()) == 1
    assert says in ran.err
    assert not content.exists()


def test_a_job_that_was_submitted_is_given_before_the_trainer_checks_anything(
    box: Box, socket: Path, job: Path, content: Path
) -> None:
    job.write_text(JOB_TOML + '[queue]\ndedupe_key = "nightly"\n')
    first = cli("submit", job, "--json", socket=socket)
    content.unlink()
    second = cli("submit", job, "--json", socket=socket)
    assert (second.code, second.out) == (0, first.out)
    assert not content.exists(), "the trainer was not asked"
    assert len(box.entries) == 1

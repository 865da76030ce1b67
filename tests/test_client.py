"""`from carbonsched import Client`: the page's example as it stands, what it refuses, and what it costs to import."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.box import JOB_TOML, SPEC, Box, serving

import carbonsched
from carbonsched import Client
from carbonsched.errors import CarbonschedError, InputError, StateError, UnreachableError
from carbonsched.model.job import JobSpec
from carbonsched.model.job_state import JobState

EXAMPLE = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "docs/python.md").read_text(), re.S)
CHECKED = {
    "ok": True, "model": "m", "params": 1, "rows": 8, "validation_rows": 2, "steps": 20, "segments": 2,
    "rho_floor": 0.4, "step_flops_full": 1e12, "batch": 4, "seq": 64,
}  # fmt: skip


@pytest.fixture
def box(tmp_path: Path) -> Box:
    trainer = tmp_path / "trainer-python"
    trainer.write_text(f"#!/bin/sh\necho '{json.dumps(CHECKED)}'\n")
    trainer.chmod(0o755)
    return Box(tmp_path, str(trainer))


@pytest.fixture
def client(box: Box, tmp_path: Path) -> Iterator[Client]:
    with serving(box, tmp_path / "api.sock") as path:
        yield Client(path)


def test_the_example_of_the_page_runs(
    client: Client, box: Box, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CARBONSCHED_SOCKET", str(box.folder / "api.sock"))
    [code] = EXAMPLE
    exec(code, {})  # noqa: S102
    [entry] = box.entries.values()
    assert entry.state is JobState.CANCELLED
    assert entry.spec.carbon.budget_g == 150
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [
        "40 g expected, 2026-11-22 10:00:00+00:00 to 2026-11-22 12:00:00+00:00",
        "queued 0.0 120.0",
    ]
    assert said[-1] == "200.0"


@pytest.mark.parametrize("form", ["file", "dictionary", "spec"])
def test_a_job_in_each_form(client: Client, box: Box, tmp_path: Path, form: str) -> None:
    file = tmp_path / "job.toml"
    file.write_text(JOB_TOML)
    submitted = client.submit({"file": file, "dictionary": SPEC, "spec": JobSpec.parse(SPEC)}[form])
    assert box.entries[submitted.id].spec == JobSpec.parse(SPEC)
    assert [job.id for job in client.jobs()] == [submitted.id]
    assert client.version().pid == 1
    assert client.pools() == ()


def test_what_is_wrong_is_said_in_one_line(client: Client, box: Box, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="budget_gram: unknown key; did you mean 'budget_g'"):
        client.submit(SPEC | {"carbon": {"budget_gram": 3}})
    with pytest.raises(InputError, match="there is no file"):
        client.submit(tmp_path / "gone.toml")
    with pytest.raises(InputError, match="report: says neither"):
        client.report()
    with pytest.raises(InputError, match="no time zone"):
        client.report(start=datetime(2026, 11, 1))  # noqa: DTZ001
    assert client.report(start=datetime(2026, 11, 1, tzinfo=UTC))
    with pytest.raises(CarbonschedError, match="there is no job nope") as refused:
        client.cancel("nope")
    assert refused.value.exit_code == 2
    with pytest.raises(StateError, match="still queued after 0 s"):
        client.wait(box.add().id, timeout_s=0)
    with pytest.raises(UnreachableError, match="no daemon there"):
        Client(tmp_path / "other.sock").jobs()


def test_the_package_itself_stays_light() -> None:
    code = "import sys, carbonsched; assert 'pydantic' not in sys.modules; carbonsched.Client; assert 'pydantic' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        carbonsched.Klient  # noqa: B018

"""The job directory: whole lines out, changed directives in."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from support.fuzz import CHANGES, EDITS, FUZZ, changed, damaged
from support.models import job_folder, tiny_spec
from support.steer import directive, of, write_control

from carbonsched.errors import InputError
from carbonsched.model.protocol import Failed, Warned
from trainer.job.job_dir import JobDir, now, write_json


def test_events_are_lines_and_a_torn_one_is_closed(tmp_path: Path) -> None:
    job = JobDir(tmp_path)
    job.send(Failed(at=now(), error="x" * 100_000))
    job.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event": "fin')
    successor = JobDir(tmp_path)
    successor.send(Warned(at=now(), message="after"))
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert len(lines) == 3
    assert [event.event for event in successor.events()] == ["failed", "warning"]
    successor.close()


def test_a_directive_is_read_when_it_changes(tmp_path: Path) -> None:
    job = JobDir(tmp_path)
    assert job.read_directive() is None
    write_control(tmp_path, {"seq": 1, **directive(0, 0.5)})
    first = job.read_directive()
    assert first is not None
    assert first.rho == 0.5
    assert job.read_directive() is None
    write_control(tmp_path, {"seq": 2, **directive(0, 0.4)})
    second = job.read_directive()
    assert second is not None
    assert second.seq == 2


def test_two_directives_in_one_instant_are_two(tmp_path: Path) -> None:
    """Same size, same time, maybe the same inode: told apart by what they say."""
    job = JobDir(tmp_path)
    for seq in range(1, 9):
        write_control(tmp_path, {"seq": seq, **directive(0, 0.5)})
        os.utime(tmp_path / "control.json", (1, 1))
        found = job.read_directive()
        assert found is not None
        assert found.seq == seq


def test_a_broken_control_file_is_passed_over_and_said_once(tmp_path: Path) -> None:
    job = JobDir(tmp_path)
    (tmp_path / "control.json").write_text('{"seq": 1, "k"')
    assert job.read_directive() is None
    assert job.read_directive() is None
    assert len(of(tmp_path, "warning")) == 1
    (tmp_path / "control.json").write_text("[" * 100_000)
    assert job.read_directive() is None
    (tmp_path / "control.json").unlink()
    (tmp_path / "control.json").mkdir()
    assert job.read_directive() is None
    assert [event["message"] for event in of(tmp_path, "warning")[1:]] == [
        "control.json passed over: maximum recursion depth exceeded while decoding a JSON array from a unicode string",
        "control.json passed over: Is a directory",
    ]
    (tmp_path / "control.json").rmdir()
    write_control(tmp_path, {"seq": 1, **directive(0, 0.5)})
    assert job.read_directive() is not None
    job.close()


def test_spec_errors_name_the_mend(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a job directory"):
        JobDir(tmp_path).spec()
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        JobDir(tmp_path).spec()
    spec = tiny_spec(Path("m"), Path("d"), train={"epoch": 3})
    with pytest.raises(
        InputError, match=r"spec\.json: spec\.train\.epoch: unknown key; did you mean 'epochs'"
    ):
        JobDir(job_folder(tmp_path / "job", spec)).spec()


def test_json_is_replaced_in_one_step(tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    write_json(file, {"a": 2})
    assert json.loads(file.read_text()) == {"a": 2}
    assert [f.name for f in tmp_path.iterdir()] == ["x.json"]


# ---- fuzz


@pytest.mark.fuzz
@FUZZ
@given(edits=EDITS)
def test_any_bytes_in_control_json_are_a_directive_or_passed_over(
    tmp_path: Path, tried: Callable[[], None], edits: list[tuple[int, int, bytes]]
) -> None:
    whole = json.dumps({"seq": 1, **directive(0, 0.5, until="2026-11-22T10:00:00Z")}).encode()
    job = JobDir(tmp_path)
    for data in damaged(whole, edits):
        (tmp_path / "control.json").write_bytes(data)
        job.read_directive()
        tried()
    job.close()


@pytest.mark.fuzz
@FUZZ
@given(changes=CHANGES)
def test_any_values_in_control_json_are_a_directive_or_passed_over(
    tmp_path: Path, tried: Callable[[], None], changes: list[tuple[int, Any, str]]
) -> None:
    job = JobDir(tmp_path)
    for document in changed({"seq": 1, **directive(0, 0.5, until="2026-11-22T10:00:00Z")}, changes):
        (tmp_path / "control.json").write_text(json.dumps(document))
        job.read_directive()
        tried()
    job.close()

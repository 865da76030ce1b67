"""JOB.toml and spec.json mean the same job from any folder; what is wrong in them is named with a hint."""

import json
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from support.box import JOB_TOML
from support.fuzz import CHANGES, EDITS, FUZZ, changed, damaged, read_or_refuse
from support.models import job_folder, tiny_spec

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from carbonsched.model.job_file import read_job, resolve_paths


def write(folder: Path, text: str) -> Path:
    path = folder / "job.toml"
    path.write_text(text)
    return path


def test_local_paths_become_absolute_hub_ids_stay(tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    (tmp_path / "dev.jsonl").write_text("{}\n")
    text = JOB_TOML.replace("HuggingFaceTB/SmolLM2-135M", "models/tiny")
    text = text.replace("[carbon]", 'validation = "dev.jsonl"\n[carbon]')
    spec = read_job(write(tmp_path, text))
    assert spec.model.name_or_path == str(tmp_path / "models" / "tiny")
    assert spec.data.name_or_path == "allenai/scitldr"
    assert spec.data.validation == str(tmp_path / "dev.jsonl")


def test_a_test_file_is_found_beside_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text("{}\n")
    text = JOB_TOML.replace("[carbon]", '[evaluate]\ntest = "held.jsonl"\n[carbon]')
    assert read_job(write(tmp_path, text)).evaluate.test == str(tmp_path / "held.jsonl")
    text = JOB_TOML.replace("[carbon]", '[evaluate]\ntest = "test"\n[carbon]')
    assert read_job(write(tmp_path, text)).evaluate.test == "test"


def test_validation_split_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "validation").mkdir()
    text = JOB_TOML.replace("[carbon]", 'validation = "validation"\n[carbon]')
    assert read_job(write(tmp_path, text)).data.validation == "validation"


def test_same_job_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    path = write(tmp_path, JOB_TOML.replace("allenai/scitldr", "./data"))
    monkeypatch.chdir(tmp_path)
    here = read_job(Path("job.toml"))
    monkeypatch.chdir("/")
    assert here == read_job(path)
    assert here.data.name_or_path == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (JOB_TOML + "oops\n", "job.toml: is not TOML: .*line 8.*fix that line"),
        (JOB_TOML + "budget = 3\n", "job.toml: carbon.budget: unknown key; did you mean 'budget_g'?"),
        (
            JOB_TOML.replace("120.0", "-1"),
            "job.toml: carbon.budget_g: must be above 0 and 1000000000000 at most, is -1",
        ),
        (
            JOB_TOML + "deadline = 2026-01-01T00:00:00Z\n",
            "carbon.deadline: 2026.* is not a duration; write it like",
        ),
        (JOB_TOML + 'allowed_hours = "22:00-06:00"\n', "carbon.allowed_hours: must be a list, in "),
        (JOB_TOML.replace("budget_g = 120.0", ""), "give exactly one of budget_g, budget_share, "),
        (JOB_TOML.replace("allenai/scitldr", "./none"), "job.toml: data.name_or_path: there is no .*/none"),
        (
            JOB_TOML.replace("HuggingFaceTB/SmolLM2-135M", "/no/such"),
            "model.name_or_path: there is no /no/such",
        ),
        (JOB_TOML + "deadline = " + "9" * 400 + "\n", "carbon.deadline: .*is too large a number"),
        (JOB_TOML + "deadline = true\n", "carbon.deadline: true is not a duration"),
        (
            JOB_TOML + "deadline = " + "9" * 5000 + "\n",
            "job.toml: is not TOML: line 8 has a number of 5000 digits; write fewer",
        ),
        (JOB_TOML + "deadline = " + "[" * 5000 + "\n", "job.toml: is nested too deep"),
        (JOB_TOML + '"a\\nb[" = 1\n', r"carbon.a\\nb\[: unknown key"),
        (JOB_TOML + f'timezone = "Europe/{"x/" * 3000}"\n', "carbon.timezone: .*is no time zone"),
        (
            JOB_TOML.replace("allenai/scitldr", "~no-such-user/x"),
            "data.name_or_path: '~no-such-user/x' names a home that",
        ),
        (JOB_TOML.replace("allenai/scitldr", "a\\u0000b"), "data.name_or_path: .*NUL"),
        (
            JOB_TOML.replace("allenai/scitldr", "x" * 300),
            "data.name_or_path: .*cannot be looked at: File name",
        ),
        (JOB_TOML.replace("[model]", "[modell]"), "modell: unknown key; did you mean 'model'?"),
    ],
)
def test_wrong_job_file_names_field_and_mend(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says) as caught:
        read_job(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_spec_json_as_submitted_and_as_a_bare_spec_are_the_same_job(tmp_path: Path) -> None:
    for name in ("model", "data"):
        (tmp_path / name).mkdir()
    spec = tiny_spec(tmp_path / "model", tmp_path / "data")
    job = job_folder(tmp_path / "job", spec)
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(spec))
    assert read_job(job / "spec.json") == read_job(bare) == JobSpec.parse(spec)


def test_json_that_is_none_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{\n,}")
    with pytest.raises(InputError, match=r"spec\.json: is not JSON: .*line 2"):
        read_job(tmp_path / "spec.json")


def test_a_byte_order_mark_is_no_part_of_it(tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(JOB_TOML, encoding="utf-8-sig")
    assert read_job(job).name == read_job(write(tmp_path, JOB_TOML)).name


@pytest.mark.parametrize("place", ["model", "data", "validation", "test"])
@pytest.mark.parametrize("what", ["/dev/zero", "pipe"])
def test_a_pipe_or_device_is_refused_by_name_and_not_waited_for(
    tmp_path: Path, place: str, what: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    spec = tiny_spec(tmp_path, Path("data"))
    (tmp_path / "data").mkdir()
    part, key = {"validation": ("data", place), "test": ("evaluate", place)}.get(
        place, (place, "name_or_path")
    )
    spec.setdefault(part, {})[key] = what
    with pytest.raises(InputError, match=f"^{part}.{key}: '{what}' is neither a file nor a folder"):
        resolve_paths(JobSpec.parse(spec), tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "JOB.toml"
    with pytest.raises(
        InputError, match=f"JOB.toml: there is no file {re.escape(str(missing))}; give the path of"
    ):
        read_job(missing)


def test_paths_may_be_resolved_from_another_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    spec = JobSpec.parse(tiny_spec(tmp_path, Path("data")))
    assert resolve_paths(spec, tmp_path).data.name_or_path == str(tmp_path / "data")
    with pytest.raises(InputError, match=r"^data\.name_or_path: there is no "):
        resolve_paths(JobSpec.parse(tiny_spec(tmp_path, Path("../gone"))), tmp_path / "elsewhere")


# ---- fuzz


FULL_JOB = tomllib.loads(
    JOB_TOML + 'deadline = "36h"\nallowed_hours = ["22:00-06:00"]\ntimezone = "Europe/Berlin"\n'
    '[train]\nmethod = "greentrainer"\nepochs = 2\nsegment = "epoch"\n[evaluate]\ntest = "test"\nmetrics = ["nll"]\n'
)


@pytest.mark.fuzz
@FUZZ
@given(edits=EDITS)
def test_any_bytes_in_a_job_file_are_read_or_refused(
    tmp_path: Path, tried: Callable[[], None], edits: list[tuple[int, int, bytes]]
) -> None:
    file = tmp_path / "job.toml"
    for data in damaged(tomli_w.dumps(FULL_JOB).encode(), edits):
        file.write_bytes(data)
        read_or_refuse(lambda: read_job(file))
        tried()


@pytest.mark.fuzz
@FUZZ
@given(changes=CHANGES)
def test_any_values_in_a_spec_are_read_or_refused(
    tmp_path: Path, tried: Callable[[], None], changes: list[tuple[int, Any, str]]
) -> None:
    file = tmp_path / "spec.json"
    for document in changed(FULL_JOB, changes):
        file.write_text(json.dumps(document))
        read_or_refuse(lambda: read_job(file))
        tried()


def test_labels_are_text_by_any_key_and_options_add_to_those_of_the_file(tmp_path: Path) -> None:
    path = write(
        tmp_path, JOB_TOML + '[labels]\nproject = "thesis"\ncost_centre = 4711\n"team/a.b" = "nlp"\n'
    )
    changes = {"labels.project": "demo", "labels.x.y": "1"}
    found = read_job(path, changes)
    assert found.labels == {"project": "demo", "cost_centre": "4711", "team/a.b": "nlp", "x.y": "1"}
    assert read_job(write(tmp_path, JOB_TOML)).labels == {}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("labels = 3", "job.toml: labels: is no table"),
        ('[labels]\na.b = "x"', "labels.a: is no text; quote the key that has a dot"),
        ("[labels]\na = true", "labels.a: is no text; quote the value"),
        ("[labels]\na = 1.5", "labels.a: is no text; quote the value"),
        ('[labels]\na = ""', "labels.a: is empty or too long"),
        (f'[labels]\na = "{"x" * 201}"', "labels.a: is empty or too long"),
        ('[labels]\na = "x\\ny"', "labels.a: .*one plain line"),
        ('[labels]\n"a b" = "x"', "labels.a b: is no key of a label"),
        (f'[labels]\n{"k" * 64} = "x"', "is no key of a label"),
        ("[labels]\n" + "".join(f"k{n} = 1\n" for n in range(33)), "labels: has 33 keys; keep to 32"),
    ],
)
def test_a_label_that_no_report_could_print_is_refused(tmp_path: Path, line: str, says: str) -> None:
    text = f"{line}\n{JOB_TOML}" if line.startswith("labels") else f"{JOB_TOML}{line}\n"
    with pytest.raises(InputError, match=says):
        read_job(write(tmp_path, text))

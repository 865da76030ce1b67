"""A config and a job file are taken by the types they are written in, every table of them."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from support.box import JOB_TOML

from carbonsched.config import load
from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.job_file import read_job
from carbonsched.model.strict_types import check_types

CONFIG = """
pue = 1.2
[[pue_hours]]
pue = 1.4
source = "BMS"
months = [6, 7]
[pue_feed]
url = "http://127.0.0.1:9090"
query = "pue"
max_age = "10m"
[zone]
worst_g_per_kwh = 900
[[feeds]]
provider = "static"
g_per_kwh = 350
basis = "average-lifecycle"
source = "a year's mean"
[[prices]]
provider = "static"
eur_per_kwh = 0.3
source = "the contract"
[[supply]]
provider = "static"
share = 0.5
g_per_kwh = 41
source = "the roof"
[power]
gpu = "nvml"
boards = [0, "GPU-1"]
tick_s = 1
sample_hz = 10
[ledger]
row_s = 10
roll_up = true
[launch]
slots = 2
stop_s = "2m"
[plan]
quantile = 0.95
[[pools]]
name = "lab"
budget_g = 500
[[quotas]]
who = "*"
jobs = 4
grams_per_day = 50
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def refused(folder: Path, text: str) -> str:
    (folder / "box.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        load(folder / "box.toml")
    return str(caught.value)


def test_what_is_written_with_its_types_is_taken_and_whole_numbers_are_for_others_too(folder: Path) -> None:
    (folder / "box.toml").write_text(CONFIG)
    found = load(folder / "box.toml")
    assert (found.pue, found.pools[0].budget_g, found.launch.stop_s) == (1.2, 500.0, 120.0)


def numbers(table: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every number of a document, by the way to it."""
    if isinstance(table, bool | str):
        return []
    if isinstance(table, int | float):
        return [path]
    pairs = table.items() if isinstance(table, dict) else enumerate(table)
    return [found for name, part in pairs for found in numbers(part, (*path, name))]


def written(path: tuple[Any, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


# a board is named by an index or by text
NUMBERS = [path for path in numbers(tomllib.loads(CONFIG)) if path[:2] != ("power", "boards")]


def value_at(path: tuple[Any, ...]) -> Any:
    value: Any = tomllib.loads(CONFIG)
    for part in path:
        value = value[part]
    return value


@pytest.mark.parametrize("path", NUMBERS, ids=written)
@pytest.mark.parametrize("slip", ['"{}"', "true"])
def test_text_or_true_in_the_place_of_any_number_is_named_in_one_line(
    folder: Path, path: tuple[Any, ...], slip: str
) -> None:
    value = value_at(path)
    key = next(part for part in reversed(path) if isinstance(part, str))
    lines = CONFIG.splitlines()
    table = path[0] if len(path) > 1 else ""
    start = next((i for i, line in enumerate(lines) if line.strip("[]") == table and line.startswith("[")), 0)
    n = next(i for i in range(start, len(lines)) if lines[i].startswith(f"{key} = "))
    lines[n] = lines[n].replace(str(value), slip.format(value), 1)
    said = refused(folder, "\n".join(lines))
    named = (written(path), ".".join(map(str, path)))
    # true is 1, which may lie outside of what the key takes: that is said then
    words = ("must be a number, is ",) if slip != "true" else ("must be a number, is true", "is true")
    assert any(said.startswith(f"box.toml: {name}: ") for name in named)
    assert any(each in said for each in words)
    assert "\n" not in said


@pytest.mark.parametrize("slip", ['"yes"', "1", '"true"'])
def test_a_word_or_a_number_in_the_place_of_true_is_named(folder: Path, slip: str) -> None:
    said = refused(folder, CONFIG.replace("roll_up = true", f"roll_up = {slip}"))
    assert said.startswith("box.toml: ledger.roll_up: must be true or false, is ")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('[train]\nlr = "2e-5"', "job.toml: train.lr: must be a number, is '2e-5'; write it without quotes"),
        ("[train]\nepochs = true", "job.toml: train.epochs: must be a number, is true; write a number"),
        ('[train]\nsegment = "10"', "job.toml: train.segment: "),
        ('[train]\nmethod = "lora"\nlora_rank = "8"', "job.toml: train.lora_rank: must be a number"),
        ("[train]\ncompile = 1", "job.toml: train.compile: must be true or false, is 1"),
        ('[queue]\npriority = "2"', "job.toml: queue.priority: must be a number"),
    ],
)
def test_a_job_file_too(folder: Path, line: str, says: str) -> None:
    (folder / "job.toml").write_text(f"{JOB_TOML}{line}\n")
    with pytest.raises(InputError) as caught:
        read_job(folder / "job.toml")
    assert str(caught.value).startswith(says)


def whole(model: type[BaseModel]) -> set[str]:
    """Names of the fields that are whole numbers."""

    def takes(annotation: Any) -> bool:
        inner = get_args(annotation)
        return annotation is int or (bool(inner) and any(map(takes, inner)))

    return {name for name, info in model.model_fields.items() if takes(info.annotation)}


@pytest.mark.parametrize("key", sorted(whole(TrainPart)))
def test_no_whole_number_of_a_job_has_a_point(key: str) -> None:
    data = tomllib.loads(JOB_TOML) | {"train": {key: 4.0}}
    try:
        read = JobSpec.parse(data)
    except InputError:  # 4 is not for this one, or for this method
        return
    with pytest.raises(InputError) as caught:
        check_types(read, data, "job.toml")
    said = "must be a whole number, is 4.0; whole numbers are written without a point"
    assert str(caught.value) == f"job.toml: train.{key}: {said}"


@pytest.mark.parametrize("key", ["launch.slots", "quotas[0].jobs", "pue_hours[0].months[0]"])
def test_no_whole_number_of_a_config_has_a_point(folder: Path, key: str) -> None:
    path = next(path for path in NUMBERS if written(path) == key)
    name = next(part for part in reversed(path) if isinstance(part, str))
    value = f"{value_at(path)}"
    text = re.sub(rf"(?m)^({name} = \[?){value}\b", rf"\g<1>{value}.0", CONFIG)
    assert refused(folder, text).startswith(f"box.toml: {key}: must be a whole number, is {value}.0; whole ")


def test_what_is_written_as_text_stays_text(folder: Path) -> None:
    (folder / "job.toml").write_text(
        f'{JOB_TOML}deadline = "36h"\n[labels]\nrun = 7\n[train]\nsegment = 10\nseed = 3\n'
    )
    job = read_job(folder / "job.toml")
    assert (job.carbon.deadline, job.train.segment, job.train.seed) == (129_600, 10, 3)

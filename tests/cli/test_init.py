"""A job file to begin with: it parses as it is, and every key that stands in it as a comment is one that a job has."""

import re
import resource
import signal
import tomllib
from pathlib import Path

import pytest
from support.command import cli

from carbonsched.cli.init import init
from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec


def test_it_is_a_job_with_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "qa.toml"
    given = ["--model", "org/m", "--data", "rows.jsonl", "--budget-g", "80"]
    assert cli("init", file, *given, "--json").doc == {"file": str(file)}
    spec = JobSpec.parse(tomllib.loads(file.read_text()))
    whole = {"name": "rows-m", "model": {"name_or_path": "org/m"}, "data": {"name_or_path": "rows.jsonl"}}
    assert spec == JobSpec.parse(whole | {"carbon": {"budget_g": 80.0}})


def test_every_key_behind_a_comment_sign_can_be_taken(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    cli("init", file)
    text = file.read_text()
    keys = re.findall(r"^# [a-z_]+ = .*$", text, flags=re.M)
    assert len(keys) > 15
    for line in keys:
        JobSpec.parse(tomllib.loads(text.replace(line, line.removeprefix("# "))))
    defaults = JobSpec.parse(tomllib.loads(text))
    train = [line for line in keys if line in text.split("[train]")[1].split("[evaluate]")[0]]
    for line in train:
        changed = JobSpec.parse(tomllib.loads(text.replace(line, line.removeprefix("# "))))
        assert changed.train == defaults.train, f"{line} is not the default"


def test_what_is_there_stays(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text("mine")
    ran = cli("init", file)
    assert (ran.code, ran.out, file.read_text()) == (2, "", "mine")
    assert "--force" in ran.err
    assert cli("init", file, "--force").code == 0
    assert "[carbon]" in file.read_text()


@pytest.mark.parametrize("argv", [["--budget-g", "0"], ["--budget-g", "nan"], ["/nowhere/job.toml"], ["-"]])
def test_what_cannot_be_a_job_is_not_written(argv: list[str], tmp_path: Path) -> None:
    file = [] if argv[0] in ("-", "/nowhere/job.toml") else [tmp_path / "job.toml"]
    ran = cli("init", *file, *argv)
    assert ran.code == InputError.exit_code
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("a.json",), "a.json: would be read as JSON, and init writes TOML; give a name such as a.toml"),
        (("mine.toml",), "mine.toml: is there already; give another name, or --force"),
        (("folder",), "folder: is a folder; give a file, such as folder/job.toml"),
        (("folder/no/a.toml",), "folder/no/a.toml: cannot be written: No such file or directory"),
        (("--model", ""), "--model: is empty; give a hub id, a folder or a file"),
        (("--data", " "), "--data: is empty; give a hub id, a folder or a file"),
        (("--budget-g", "-3"), "--budget-g: must be above 0 and 1000000000000 at most, is -3"),
    ],
)
def test_a_refusal_names_the_file_or_the_flag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text("mine")
    (tmp_path / "folder").mkdir()
    ran = cli("init", *argv)
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert ran.err.startswith(f"carbonsched: {says}"), ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "mine.toml"]


def test_names_of_any_letters_are_written_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    name = 'modèle "\U0001f4a5"\x7f \\ ü'
    cli("init", file, "--model", name)
    assert JobSpec.parse(tomllib.loads(file.read_text())).model.name_or_path == name


def test_a_full_disk_leaves_no_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        with pytest.raises(InputError, match=r"job.toml: cannot be written: File too large"):
            init(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert not file.exists()

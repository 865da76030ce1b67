"""Files that the daemon has handed over are read where it put them, and called what the job's owner calls them."""

from pathlib import Path

import pytest
from support.models import job_folder, tiny_spec, word_data, write_jsonl

from carbonsched.errors import InputError
from trainer.data.reading import load_rows
from trainer.job.inputs import handed_over, own_names
from trainer.job.job_dir import JobDir


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobDir:
    """A folder of rows and a test set, both gone by name and handed over under inputs/."""
    home = tmp_path / "home"
    data, test = word_data(home / "data"), home / "sets" / "questions.jsonl"
    test.parent.mkdir()
    test.write_bytes((data / "validation.jsonl").read_bytes())
    spec = tiny_spec(home / "llama", data) | {"evaluate": {"test": str(test)}}
    folder = job_folder(tmp_path / "job", spec)
    (folder / "inputs").mkdir()
    data.rename(folder / "inputs" / "data")
    test.parent.rename(folder / "inputs" / "test")
    (folder / "inputs" / "model").mkdir()
    monkeypatch.setenv("CARBONSCHED_JOB_DIR", str(folder))
    return JobDir(folder)


def test_what_was_handed_over_is_read(job: JobDir, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = job.spec().spec
    read = handed_over(job, spec)
    rows = load_rows(read.data, read.evaluate)
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (32, 8, 8)
    assert read.model.name_or_path == str(job.path / "inputs" / "model")
    monkeypatch.delenv("CARBONSCHED_JOB_DIR")
    assert handed_over(job, spec) == spec, "links of an ended process lead nowhere"


@pytest.mark.parametrize(
    ("part", "file", "own"),
    [("data", "train.jsonl", "data/train.jsonl"), ("test", "questions.jsonl", "sets/questions.jsonl")],
)
def test_messages_keep_the_names_that_the_owner_knows(job: JobDir, part: str, file: str, own: str) -> None:
    write_jsonl(job.path / "inputs" / part / file, [{"source": "a"}])
    spec = job.spec().spec
    read = handed_over(job, spec)
    with pytest.raises(InputError) as caught:
        load_rows(read.data, read.evaluate)
    told = own_names(job, spec, str(caught.value))
    assert str(job.path.parent / "home" / own) in told
    assert "inputs" not in told

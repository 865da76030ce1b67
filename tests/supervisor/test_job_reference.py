"""Which job a person means: exact ids first, then names, then first letters; never a guess. And the ids of new ones."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rig import ME, Rig, spec

from carbonsched.errors import InputError, NotFoundError
from carbonsched.model.command import RunRequest
from carbonsched.supervisor import job_reference
from carbonsched.supervisor.job_reference import pick

IDS = ["qa-1f00aa", "qa-long-22bb00", "sum-333333", "sum-344444"]


@pytest.mark.parametrize(
    ("reference", "means"),
    [
        ("qa-1f00aa", "qa-1f00aa"),
        ("qa", "qa-1f00aa"),  # a name, though two ids begin with it
        ("qa-l", "qa-long-22bb00"),
        ("sum-34", "sum-344444"),
    ],
)
def test_means_one(reference: str, means: str) -> None:
    assert pick(reference, IDS) == means


@pytest.mark.parametrize("reference", ["", "nope", "QA", "../qa", "qa-1f00aab", "%", "_"])
def test_means_none(reference: str) -> None:
    with pytest.raises(NotFoundError, match="carbonsched ps lists them"):
        pick(reference, IDS)


@pytest.mark.parametrize("reference", ["sum", "sum-3", "q"])
def test_means_several(reference: str) -> None:
    with pytest.raises(InputError, match="fits 2 jobs"):
        pick(reference, IDS)


@given(st.lists(st.text("ab-", min_size=1, max_size=5), unique=True), st.text("ab-", max_size=5))
def test_an_id_is_itself_and_what_is_found_begins_so(ids: list[str], reference: str) -> None:
    for job_id in ids:
        assert pick(job_id, ids) == job_id
    try:
        assert pick(reference, ids).startswith(reference)
    except (InputError, NotFoundError):
        fitting = [i for i in ids if i.startswith(reference)]
        assert reference not in ids
        assert not reference or len(fitting) != 1


def test_a_long_name_means_the_job_though_its_id_shows_only_the_beginning(tmp_path: Path) -> None:
    rig, name = Rig(tmp_path), "scitldr-smollm2-135m-greentrainer-rho-0.6-seed-3"
    job = rig.submit(spec().model_copy(update={"name": name}))
    assert not job.id.startswith(name)
    assert rig.service.resolve(name, ME) == job.id
    with pytest.raises(NotFoundError):
        rig.service.resolve(f"{name}4", ME)


def test_a_number_that_is_drawn_again_touches_no_other_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 bits: of ten thousand jobs of one name three pairs draw the same."""
    drawn = iter(["00aa11", "00aa11", "00aa11", "00aa11", "22bb33", "22bb33", "00aa11", "44cc55"])
    monkeypatch.setattr(job_reference, "token_hex", lambda _: next(drawn))
    rig = Rig(tmp_path)
    first = rig.running()
    (first.dir / "output").mkdir(exist_ok=True)
    (first.dir / "output" / "model.safetensors").write_bytes(b"weights")
    assert [first.id, rig.submit().id] == ["tiny-00aa11", "tiny-22bb33"]
    asked = {"name": "tiny", "command": {"argv": ["make"]}, "pid": 7, "share": True}
    assert rig.service.begin_run(RunRequest.parse(asked), ME).id == "tiny-44cc55"
    assert (first.dir / "output" / "model.safetensors").read_bytes() == b"weights"
    rig.run(2)
    assert first.show().state == "running"


def test_the_number_of_a_removed_job_is_not_given_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter(["00aa11", "00aa11", "22bb33"])
    monkeypatch.setattr(job_reference, "token_hex", lambda _: next(drawn))
    rig = Rig(tmp_path)
    job = rig.submit()
    rig.service.cancel(job.id, ME)
    rig.service.remove(job.id, ME)
    assert rig.submit().id == "tiny-22bb33"

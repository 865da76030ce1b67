"""Which job a person means: exact ids first, then names, then first letters; never a guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbonsched.errors import InputError, NotFoundError
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

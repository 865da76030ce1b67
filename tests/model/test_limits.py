"""A number out of its range is refused with the whole range, in config and job alike."""

from typing import Annotated, Any

import pytest
from pydantic import Field

from carbonsched.config import Config
from carbonsched.errors import InputError
from carbonsched.model.base import Doc
from carbonsched.model.job import JobSpec
from carbonsched.model.limits import Limits, limits_of

JOB: dict[str, Any] = {
    "name": "a",
    "model": {"name_or_path": "m"},
    "data": {"name_or_path": "d"},
    "carbon": {"budget_g": 1},
}
FEED = {"provider": "static", "g_per_kwh": 300, "basis": "average-lifecycle", "source": "x"}


@pytest.mark.parametrize(
    ("table", "key", "value", "says"),
    [
        ("train", "gradient_share", 0, "must be above 0 and 1 at most, is 0"),
        ("train", "gradient_share", 2, "must be above 0 and 1 at most, is 2"),
        ("train", "cooldown", 2, "must be 0.02 to 0.9, is 2"),
        ("train", "momentum", 1, "must be 0 or more and below 1, is 1"),
        ("train", "batch_size", 0, "must be 1 or more, is 0"),
        ("queue", "priority", 500, "must be -100 to 100, is 500"),
        ("carbon", "budget_g", -3, "must be above 0 and 1000000000000 at most, is -3"),
        ("carbon", "budget_g", False, "must be a number, is false; write a number"),
        ("train", "epochs", False, "must be a number, is false; write a number"),
        (
            "train",
            "epochs",
            10**200,
            "must be 9007199254740992 or less, is a number of more than 100 digits",
        ),
    ],
)
def test_of_a_job(table: str, key: str, value: object, says: str) -> None:
    with pytest.raises(InputError) as told:
        JobSpec.parse(JOB | {table: JOB.get(table, {}) | {key: value}}, "job.toml")
    assert str(told.value) == f"job.toml: {table}.{key}: {says}"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"pue": 0.5}, "pue: must be 1 to 10, is 0.5"),
        ({"plan": {"quantile": 0.5}}, "plan.quantile: must be above 0.5 and below 1, is 0.5"),
        (
            {"pools": [{"name": "a", "budget_g": 0}]},
            "pools[0].budget_g: must be above 0 and 1000000000000 at most, is 0",
        ),
    ],
)
def test_of_a_config(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as told:
        Config.parse({"feeds": [FEED]} | given)
    assert str(told.value).startswith(says)


def test_of_lists_unions_and_aliases() -> None:
    class Share(Doc):
        part: Annotated[float, Field(gt=0, lt=1)] | str = 0.5

    class Both(Doc):
        shares: tuple[Share, ...] = ()
        most: Annotated[int, Field(le=9)] | None = Field(default=None, alias="max")
        plain: float = 0.0

    assert limits_of(Both, ("shares", 3, "part")) == Limits(0, True, 1, True)
    assert limits_of(Both, ("max",)) == Limits(high=9)
    assert (limits_of(Both, ("plain",)), limits_of(Both, ("none", 0, "x"))) == (None, None)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(1, False, 10), "1 to 10"),
        (Limits(0, True, 1), "above 0 and 1 at most"),
        (Limits(0, False, 1, True), "0 or more and below 1"),
        (Limits(0.5, True, 1, True), "above 0.5 and below 1"),
        (Limits(1), "1 or more"),
        (Limits(0, True), "above 0"),
        (Limits(high=9), "9 or less"),
        (Limits(high=9, below=True), "below 9"),
        (Limits(1, False, 2.0**53), "1 or more"),
    ],
)
def test_the_words_of_a_range(limits: Limits, words: str) -> None:
    assert limits.words == words

"""What is wrong with a value is said in our words, whatever key it stands at and whatever pydantic calls it."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticKnownError
from pydantic_core.core_schema import ErrorType

from carbonsched.config import FEEDS, PRICES, SUPPLIES, Config
from carbonsched.errors import InputError
from carbonsched.model.base import input_error
from carbonsched.model.error_words import words
from carbonsched.model.job import JobSpec
from carbonsched.power.config import METERS

SLIPS: tuple[Any, ...] = (
    True,
    "1s",
    4.5,
    10**30,
    -(10**30),
    float("nan"),
    "",
    "\x07",
    [],
    [True],
    {},
    {"a": 1},
    None,
)
NOT_OURS = ("should", "unable to", "valid ", "must match")


def models(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    """A document and all its parts."""
    if model in seen:
        return
    seen.add(model)
    yield model

    def within(annotation: Any) -> Iterator[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from models(annotation, seen)
        for each in get_args(annotation):
            yield from within(each)

    for info in model.model_fields.values():
        yield from within(info.annotation)


def written() -> list[type[BaseModel]]:
    """Of what people write: config, job file, and every feed, meter and source of prices and supply."""
    seen: set[type[BaseModel]] = set()
    providers = [
        each for table in (FEEDS, PRICES, SUPPLIES, *METERS.values()) for each in table.built_in.values()
    ]
    return [found for model in (Config, JobSpec, *providers) for found in models(model, seen)]


FIELDS = [(model, name) for model in written() for name in model.model_fields]


@pytest.mark.parametrize(("model", "name"), FIELDS, ids=lambda each: getattr(each, "__name__", each))
def test_every_field_of_what_people_write_refuses_another_type_in_our_words(
    model: type[BaseModel], name: str
) -> None:
    for slip in SLIPS:
        try:
            model.model_validate({name: slip})
        except ValidationError as e:
            error = input_error(e, model, "box.toml")
        except InputError as e:
            error = e
        else:
            continue
        for line in map(str, (error, *error.others)):
            assert line.startswith("box.toml: ") or not isinstance(error, ValidationError)
            assert "\n" not in line
            assert not any(word in line for word in NOT_OURS), line


def test_the_walk_meets_every_kind_of_field() -> None:
    names = {f"{model.__name__}.{name}" for model, name in FIELDS}
    assert {
        "PowerConfig.tick_s",
        "TrainPart.max_steps",
        "CarbonPart.deadline",
        "NesoSettings.region",
    } <= names
    assert len(names) > 150


CONTEXT = {
    **dict.fromkeys(("gt", "ge", "lt", "le", "multiple_of"), 2),
    **dict.fromkeys(("min_length", "max_length", "actual_length"), 2),
    **dict.fromkeys(("expected", "pattern", "error", "tag", "expected_tags", "discriminator", "class", "class_name"), "x"),
    **dict.fromkeys(("field_type", "function_name", "method_name", "expected_schemes", "name"), "x"),
    **dict.fromkeys(("tz_expected", "tz_actual", "expected_version", "max_digits", "decimal_places", "whole_digits", "mode"), 2),
    **dict.fromkeys(("encoding", "encoding_error", "error_type", "attribute"), "x"),
}  # fmt: skip


@pytest.mark.parametrize("kind", get_args(ErrorType))
def test_no_error_that_pydantic_knows_is_told_in_its_words(kind: Any) -> None:
    try:
        message = PydanticKnownError(kind, CONTEXT).message()
    except TypeError:
        message = PydanticKnownError(kind).message()
    problem, hint = words(
        [{"type": kind, "loc": ("key",), "msg": message, "input": object(), "ctx": CONTEXT}]
    )
    assert "Input should" not in f"{problem}; {hint}"
    assert " should be " not in f"{problem}; {hint}"


@pytest.mark.parametrize(
    ("table", "key", "value", "line"),
    [
        ("power", "tick_s", "1s", "power.tick_s: must be a number, is '1s'; write it without a unit"),
        ("power", "tick_s", 0, "power.tick_s: must be above 0 and 60 at most, is 0"),
        (
            "power",
            "boards",
            [True],
            "power.boards[0]: must be a whole number or text, is true; write a number",
        ),
        ("power", "boards", "GPU-1", "power.boards: must be a list, in [ ], is 'GPU-1'; put it in [ ]"),
        (
            "launch",
            "slots",
            2.5,
            "launch.slots: must be a whole number, is 2.5; whole numbers are written without a point",
        ),
        ("launch", "slots", [2], "launch.slots: must be a whole number, is a list; write it like 4"),
        ("plan", "quantile", "0.95x", "plan.quantile: must be a number, is '0.95x'; write it without a unit"),
        ("api", "socket", 3, "api.socket: must be text, is 3; put it in quotes"),
    ],
)
def test_the_line_names_the_field_what_was_found_and_the_mend(
    table: str, key: str, value: Any, line: str
) -> None:
    with pytest.raises(InputError) as caught:
        Config.parse({"feeds": [{"provider": "neso"}], table: {key: value}}, "box.toml")
    assert str(caught.value) == f"box.toml: {line}"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", "a b", "name: must be 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first, is 'a b'"),
        ("queue", {"dedupe_key": ""}, "queue.dedupe_key: must not be empty"),
        ("carbon", {"deadline": True}, "carbon.deadline: true is not a duration; write it like 90s, 20m, 36h, 1h30m or 7d"),
    ],
)  # fmt: skip
def test_a_value_is_shown_once_and_a_pattern_is_spelt_out(key: str, value: Any, said: str) -> None:
    data = {
        "name": "a",
        "model": {"name_or_path": "m"},
        "data": {"name_or_path": "d"},
        "carbon": {"budget_g": 1},
    }
    with pytest.raises(InputError) as caught:
        JobSpec.parse(data | {key: value}, "job.toml")
    assert str(caught.value) == f"job.toml: {said}"


def test_a_union_says_all_that_is_taken() -> None:
    data = {
        "name": "a",
        "model": {"name_or_path": "m"},
        "data": {"name_or_path": "d"},
        "carbon": {"budget_g": 1},
    }
    with pytest.raises(InputError) as caught:
        JobSpec.parse(data | {"train": {"segment": "epok"}}, "job.toml")
    said = "train.segment: must be 'epoch' or a whole number, is 'epok'; did you mean 'epoch'?"
    assert str(caught.value) == f"job.toml: {said}"

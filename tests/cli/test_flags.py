"""A refusal of a value given by a flag names that flag, in every command that takes the value."""

from collections.abc import Iterator
from inspect import get_annotations
from pathlib import Path
from typing import Annotated, get_args, get_origin

import pytest
import typer
from support.command import cli

from carbonsched.cli.app import app
from carbonsched.cli.flags import naming_flags
from carbonsched.errors import CarbonschedError, InputError


def leaves(annotation: object) -> set[object]:
    parts = get_args(annotation)
    return set().union(*map(leaves, parts)) if parts else {annotation}


def numbers(group: typer.Typer, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(words of the command, flag) of every flag that takes a number."""
    for command in group.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        for parameter, annotation in get_annotations(command.callback).items():
            if get_origin(annotation) is Annotated and {int, float} & leaves(annotation.__origin__):
                first = annotation.__metadata__[0].default  # where typer keeps the first name of an option
                yield (*words, name), first if isinstance(first, str) else f"--{parameter}"
    for below in group.registered_groups:
        assert below.typer_instance is not None
        assert isinstance(below.name, str)
        yield from numbers(below.typer_instance, (*words, below.name))


NUMBERS = tuple(numbers(app))


def test_many_flags_take_numbers() -> None:
    assert {
        (("simulate",), "--budget-g"),
        (("top",), "--interval"),
        (("import", "zeus"), "--intensity"),
    } < set(NUMBERS)


@pytest.mark.parametrize(("command", "flag"), NUMBERS, ids=lambda each: "".join(each))
@pytest.mark.parametrize("value", ["nan", "-1e400", "many", "9" * 5000])
def test_a_flag_of_a_number_refuses_what_is_none_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], flag: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.csv").write_text(
        "datetime,g_per_kwh\n2022-03-01T00:00:00Z,300\n2022-03-01T01:00:00Z,200\n"
    )
    rest = {
        "simulate": {"--trace": "grid.csv", "--start": "2022-03-01", "--segments": "1", "--segment-kwh": "1"}
        | {"--segment-hours": "1", "--budget-g": "9"},
        "run": {"--ledger": "mine.db", "--intensity": "5", "--budget-g": "9"},
        "submit": {"--model": "org/m", "--data": "org/d", "--budget-g": "9"},
        "roll-up": {"--ledger": "mine.db", "--archive": "old"},
    }.get(command[-1], {})
    tail = {"run": ("--", "true"), "logs": ("x",), "budget": ("x",), "zeus": ("log.csv",)}.get(
        command[-1], ()
    )
    rest.pop("--start" if flag == "--starts" else flag, None)
    ran = cli(*command, *(word for pair in rest.items() for word in pair), flag, value, *tail)
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert ran.err.startswith(f"carbonsched: {flag}: must be "), ran.err
    assert not (tmp_path / "mine.db").exists()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("submit", "--budget-g", "-1"), "--budget-g: must be above 0"),
        (("submit", "--deadline", "soon"), "--deadline: 'soon' is not a duration"),
        (("submit", "--method", "magic"), "--method: 'magic' is no method"),
        (("submit", "--name", "a b"), "--name: must be 1 to 64 letters"),
        (("submit", "--after", ""), "--after: must not be empty"),
        (("submit", "--priority", "1000"), "--priority: must be "),
        (("submit", "--label", "a="), "--label a: is empty"),
        (
            ("submit", "--label", "a=1", "-l", "a=2"),
            "--label: a is given twice, as '1' and '2'; give it once",
        ),
        (("submit", "--set", "train.lr=x"), "--set train.lr: must be a number"),
        (("submit", "--set", "train.lr=1", "--set", "train.lr=2"), "--set: train.lr is given twice"),
        (("submit", "--data", "./none"), "--data: there is no "),
        (("submit", "--data", "d" * 5000), "--data: "),
        (("run", "--label", "a=1", "-l", "a=1", "--", "true"), "--label: a is given twice"),
        (("daemon", "--log", "loud"), "--log: must be one of 'auto', "),
        (("prune", "--older-than", "9" * 400), "--older-than: "),
    ],
)
def test_what_a_command_refuses_it_names_by_the_flag(argv: tuple[str, ...], says: str) -> None:
    rest = ("--model", "org/m", "--data", "org/d", "--budget-g", "9") if argv[0] == "submit" else ()
    given = [pair for pair in zip(rest[::2], rest[1::2], strict=True) if pair[0] not in argv]
    ran = cli(argv[0], *(word for pair in given for word in pair), *argv[1:])
    assert (ran.code, ran.err.count("\n")) == (2, 1), ran.err
    assert ran.err.startswith(f"carbonsched: {says}"), ran.err


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("budget_g", "--budget-g: is wrong"),
        ("job.toml: budget_g", "--budget-g: is wrong"),
        ("devices[2]", "--device: is wrong"),
        ("labels.a b", "--label a b: is wrong"),
        ("budget_group", "budget_group: is wrong"),
        ("pools.budget_g", "pools.budget_g: is wrong"),
    ],
)
def test_an_error_about_a_key_is_told_of_its_flag(field: str, said: str) -> None:
    flags = {"budget_g": "--budget-g", "devices": "--device", "labels": "--label"}
    with pytest.raises(InputError) as caught, naming_flags(flags):
        raise InputError(field, "is wrong")
    assert str(caught.value) == said


def test_other_errors_pass() -> None:
    with pytest.raises(CarbonschedError, match=r"^the box is full$"), naming_flags({"box": "--box"}):
        raise CarbonschedError("the box is full")

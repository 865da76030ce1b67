"""docs/configuration.md against the models: every key, its default, no key that is gone, examples that are accepted."""

import re
import sys
import tomllib
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from carbonsched.config import FEEDS, PRICES, SUPPLIES, Config
from carbonsched.model.job import JobSpec
from carbonsched.power.config import METERS, PowerConfig

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "configuration.md").read_text()
PARTS = dict(
    zip(("daemon", "job"), re.split(r"^## (?:The daemon|A job)$", TEXT, flags=re.M)[1:], strict=True)
)
ROOTS: dict[str, type[BaseModel]] = {"daemon": Config, "job": JobSpec}


def table_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (table_of(part) for part in typing.get_args(annotation))
    return next((found for found in inner if found), None)


def tables(part: str) -> dict[str, type[BaseModel]]:
    """Heading → the model whose keys its table lists."""
    root = ROOTS[part]
    found = {"Top level" if part == "daemon" else "Top level of a job": root}
    for name, info in root.model_fields.items():
        inner = table_of(info.annotation)
        if inner:
            found[f"`[[{name}]]`" if "tuple" in str(info.annotation) else f"`[{name}]`"] = inner
    return found


def rows(part: str, heading: str) -> dict[str, str]:
    """Key → default, as the table says."""
    section = re.split(r"^### ", PARTS[part], flags=re.M)
    text = next(s for s in section if s.startswith(f"{heading}\n"))
    cells = [re.split(r"(?<!\\)\|", line.strip("| ")) for line in text.splitlines() if line.startswith("| `")]
    for row in cells:
        assert len(row) == 4, row
        assert len(row[3].strip()) > 10, f"{row[0]} is not explained"
    return {row[0].strip(" `"): row[2].strip() for row in cells}


def spelled(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.default.value if isinstance(info.default, Enum) else info.default
    if default is None:
        return "none"
    if isinstance(default, tuple):
        default = [each.value if isinstance(each, Enum) else each for each in default]
    if default == sys.executable:
        return "this interpreter"
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default!r}`".replace("'", '"')


def section(heading: str) -> str:
    """The part of the daemon's page under `heading`."""
    return next(s for s in re.split(r"^### ", PARTS["daemon"], flags=re.M) if s.startswith(heading))


def keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a table and, where it names a provider, those of every built-in one."""
    chosen: list[type[BaseModel]] = []
    if model is table_of(Config.model_fields["feeds"].annotation):
        chosen = list(FEEDS.built_in.values())
    if model is table_of(Config.model_fields["prices"].annotation):
        chosen = list(PRICES.built_in.values())
    if model is table_of(Config.model_fields["supply"].annotation):
        chosen = list(SUPPLIES.built_in.values())
    if model is PowerConfig:
        chosen = [meter for meters in METERS.values() for meter in meters.built_in.values()]
    own = {name: info for name, info in model.model_fields.items() if not table_of(info.annotation)}
    theirs = {name: info for each in chosen for name, info in each.model_fields.items() if name not in own}
    return own | (
        theirs if model is not PowerConfig else {k: v for k, v in theirs.items() if k != "provider"}
    )


CASES = [(part, heading) for part in ROOTS for heading in tables(part)]


@pytest.mark.parametrize(("part", "heading"), CASES)
def test_every_key_with_its_default_and_no_other(part: str, heading: str) -> None:
    fields = keys(tables(part)[heading])
    said = rows(part, heading)
    assert set(said) == set(fields)
    assert {
        name: default.replace("'", '"') if name != "pue_source" else default for name, default in said.items()
    } == {name: spelled(info) for name, info in fields.items()}


@pytest.mark.parametrize("key", [key for key in rows("daemon", "`[[feeds]]`") if key != "provider"])
def test_the_docs_say_which_provider_takes_a_key(key: str) -> None:
    takers = takers_of(key)
    [line] = [line for line in section("`[[feeds]]`").splitlines() if line.startswith(f"| `{key}` |")]
    said = re.findall(r"\(([^)]*)\) \|$", line)[-1]
    groups = {
        "all": "name",
        "over HTTP": "url",
        "with a token": "token_env",
        "with a password": "password_env",
    }
    found = {name for group, its_key in groups.items() if group in said for name in takers_of(its_key)}
    for group in groups:
        said = said.replace(group, "")
    names = "|".join(sorted(map(re.escape, FEEDS.built_in), key=len, reverse=True))
    assert found | set(re.findall(rf"(?<![\w-])(?:{names})(?![\w-])", said)) == takers


def takers_of(key: str) -> set[str]:
    return {name for name, model in FEEDS.built_in.items() if key in model.model_fields}


@pytest.mark.parametrize("table", ["`[[feeds]]`", "`[power]`"])
def test_the_docs_name_every_provider(table: str) -> None:
    choices = {"provider": FEEDS} if table == "`[[feeds]]`" else METERS
    for key, providers in choices.items():
        [line] = [line for line in section(table).splitlines() if line.startswith(f"| `{key}` |")]
        named = set(re.findall(r"`([a-z-]+)`", line.split("|")[2])) - {"none"}
        assert named == set(providers.built_in)


def test_no_table_that_is_gone() -> None:
    headings = {(part, h) for part in ROOTS for h in re.findall(r"^### (.+)$", PARTS[part], flags=re.M)}
    assert headings == set(CASES)


@pytest.mark.parametrize("part", ROOTS)
def test_examples_are_accepted(part: str) -> None:
    examples = re.findall(r"```toml\n(.*?)```", PARTS[part], flags=re.S)
    assert examples
    for example in examples:
        ROOTS[part].model_validate(tomllib.loads(example))

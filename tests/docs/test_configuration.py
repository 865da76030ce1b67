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

from carbonsched.config import Config
from carbonsched.model.job import JobSpec

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
        default = list(default)
    if default == sys.executable:
        return "this interpreter"
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default!r}`".replace("'", '"')


CASES = [(part, heading) for part in ROOTS for heading in tables(part)]


@pytest.mark.parametrize(("part", "heading"), CASES)
def test_every_key_with_its_default_and_no_other(part: str, heading: str) -> None:
    fields = {
        name: info
        for name, info in tables(part)[heading].model_fields.items()
        if not table_of(info.annotation)
    }
    said = rows(part, heading)
    assert set(said) == set(fields)
    assert {
        name: default.replace("'", '"') if name != "pue_source" else default for name, default in said.items()
    } == {name: spelled(info) for name, info in fields.items()}


def test_no_table_that_is_gone() -> None:
    headings = {(part, h) for part in ROOTS for h in re.findall(r"^### (.+)$", PARTS[part], flags=re.M)}
    assert headings == set(CASES)


@pytest.mark.parametrize("part", ROOTS)
def test_examples_are_accepted(part: str) -> None:
    examples = re.findall(r"```toml\n(.*?)```", PARTS[part], flags=re.S)
    assert examples
    for example in examples:
        ROOTS[part].model_validate(tomllib.loads(example))

"""What stands below a key in the source describes it in the JSON Schema, and nothing else is taken for it."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from carbonsched.model.attribute_docstrings import attribute_docstrings
from carbonsched.model.base import Doc


class Older(Doc):
    """A document."""

    grams: float = 1.0
    """Spent so far;
    of CO2e."""
    steps: int = 0
    """All of them."""
    plain: int = 0


class Newer(Older):
    """One more key, and one declared anew."""

    steps: int = 1
    said: Annotated[str, Field(description="in its own words")] = ""
    """Not shown."""
    renamed: int = Field(0, alias="asWritten")
    """Another name."""

    def method(self) -> None:
        """Of no key."""


def test_each_key_has_its_own_docstring_and_inherits_those_that_it_does_not_declare_anew() -> None:
    assert attribute_docstrings(Older) == {"grams": "Spent so far;\nof CO2e.", "steps": "All of them."}
    assert attribute_docstrings(Newer) == {
        "grams": "Spent so far;\nof CO2e.",
        "said": "Not shown.",
        "renamed": "Another name.",
    }


def test_the_schema_shows_them_also_of_documents_within_others() -> None:
    keys = TypeAdapter(list[Newer]).json_schema()["$defs"]["Newer"]["properties"]
    assert {name: key.get("description") for name, key in keys.items()} == {
        "grams": "Spent so far;\nof CO2e.",
        "steps": None,
        "plain": None,
        "said": "in its own words",
        "asWritten": "Another name.",
    }


def test_a_class_without_source_has_none() -> None:
    made = type("Made", (Older,), {"__annotations__": {"more": int}, "more": 0})
    assert attribute_docstrings(made) == attribute_docstrings(Older)

"""Finds the range of a key in the annotations of its model: pydantic's error names only the bound that was passed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_UNSAID = 2.0**53
"""An upper bound from here on only keeps numbers exact: nobody comes near it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a number may be.

    Example:
        >>> Limits(low=0.0, above=True, high=1.0).words
        'above 0 and 1 at most'
    """

    low: float | None = None
    above: bool = False
    """Whether `low` itself is left out."""
    high: float | None = None
    below: bool = False
    """Whether `high` itself is left out."""

    @property
    def stated_high(self) -> float | None:
        """`high`, where it says more than that numbers are to be exact."""
        return None if self.high is None or self.high >= _UNSAID else self.high

    @property
    def words(self) -> str:
        low = None if self.low is None else f"{self.low:.15g}"
        high = None if self.stated_high is None else f"{self.stated_high:.15g}"
        if low is None or high is None:
            least = "" if low is None else f"above {low}" if self.above else f"{low} or more"
            return least or ("" if high is None else f"below {high}" if self.below else f"{high} or less")
        if not self.above and not self.below:
            return f"{low} to {high}"
        least = f"above {low}" if self.above else f"{low} or more"
        return f"{least} and {f'below {high}' if self.below else f'{high} at most'}"


def limits_of(model: type[BaseModel], path: Sequence[int | str]) -> Limits | None:
    """The range of the number at a path; None: there is no such key, or no bound, or it is one of several models' own.

    Example:
        >>> from carbonsched.model.job import TrainPart
        >>> limits_of(TrainPart, ("gradient_share",))
        Limits(low=0, above=True, high=1, below=False)
    """
    here: list[Any] = [model]
    for part in path:
        if isinstance(part, int):
            here = [arg for each in here for arg in _parts(each)]
            continue
        models = {found for each in here for found in _models(each)}
        fields = [_field(found, part) for found in models]
        here = [field for field in fields if field is not None]
        if len(here) != 1 and len(models) > 1:
            return None
    found: dict[str, float] = {}
    for each in here:
        for name, value in _bounds(each):
            found.setdefault(name, value)
    if not found:
        return None
    low, high = found.get("gt", found.get("ge")), found.get("lt", found.get("le"))
    return Limits(low, "gt" in found, high, "lt" in found)


def _field(model: type[BaseModel], name: str) -> FieldInfo | None:
    fields = model.model_fields
    return fields.get(name) or next((info for info in fields.values() if info.alias == name), None)


def _parts(annotation: Any) -> tuple[Any, ...]:
    """What an annotation is made of: the members of a union, the items of a list."""
    if isinstance(annotation, FieldInfo):
        return (annotation.annotation,)
    if get_origin(annotation) is Annotated:
        return (annotation.__origin__,)
    return tuple(arg for arg in get_args(annotation) if arg is not Ellipsis and not isinstance(arg, str))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for part in _parts(annotation):
        yield from _models(part)


def _bounds(annotation: Any) -> Iterator[tuple[str, float]]:
    metadata = getattr(annotation, "metadata", ()) or getattr(annotation, "__metadata__", ())
    for mark in metadata:
        inner = mark.metadata if isinstance(mark, FieldInfo) else (mark,)
        for each in inner:
            for name in ("gt", "ge", "lt", "le"):
                value = getattr(each, name, None)
                if isinstance(value, int | float):
                    yield name, value
    for part in _parts(annotation):
        if not isinstance(part, type):
            yield from _bounds(part)

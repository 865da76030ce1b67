"""Refuses text and true or false where a number belongs, the other way round, and a point in a whole number: a file that has types is
taken by its word.

pydantic turns `"1.2"`, `true` and `"yes"` into what a key wants. In a config or a job file they are slips: `pue = true` would be 1.
Whole numbers for others stay fine, and so does text where a key is written as text (`timeout = "20s"`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, BeforeValidator, WrapValidator
from pydantic.fields import FieldInfo

from carbonsched.errors import InputError
from carbonsched.model.error_words import NO_POINT, shown


def check_types(read: BaseModel, given: Any, where: str = "", *, points: bool = False) -> None:
    """read: the document that `given` was made into. Raises InputError that names the first key of another type.

    points: 3.0 is taken where a whole number belongs: to JSON, and to our schemas, it is one; to TOML it is not.

    Example:
        >>> class Facility(BaseModel):
        ...     pue: float
        >>> check_types(Facility(pue="1.2"), {"pue": "1.2"})
        Traceback (most recent call last):
        carbonsched.errors.InputError: pue: must be a number, is '1.2'; write it without quotes
    """
    if points:
        given = _without_points(given)
    if (found := _wrong(read, given, "", takes_text=False)) is not None:
        key, problem, hint = found
        raise InputError(f"{where}: {key}" if where else key, problem, hint)


def _without_points(given: Any) -> Any:
    """The same with every number that is whole written so."""
    if isinstance(given, Mapping):
        return {key: _without_points(value) for key, value in given.items()}
    if _listed(given):
        return [_without_points(value) for value in given]
    return int(given) if isinstance(given, float) and given.is_integer() else given


_Wrong = tuple[str, str, str]


def _wrong(read: Any, given: Any, key: str, *, takes_text: bool) -> _Wrong | None:
    """(key, problem, hint) of the first value that was made into another type."""
    if isinstance(read, BaseModel) and isinstance(given, Mapping):
        return _wrong_in(read, given, key)
    if isinstance(read, Mapping) and isinstance(given, Mapping):
        pairs = [(read[name], value, _under(key, name)) for name, value in given.items() if name in read]
        return _first(pairs, takes_text=takes_text)
    if _listed(read) and _listed(given) and len(read) == len(given):
        return _first(
            [(*pair, f"{key}[{n}]") for n, pair in enumerate(zip(read, given, strict=True))],
            takes_text=takes_text,
        )
    if isinstance(read, bool):
        if not isinstance(given, bool):
            return key, f"must be true or false, is {shown(given)}", "write true or false, without quotes"
    elif isinstance(read, int | float):
        if isinstance(given, bool):
            return key, f"must be a number, is {shown(given)}", "write a number"
        if isinstance(given, str) and not takes_text:
            return key, f"must be a number, is {shown(given)}", "write it without quotes"
        if isinstance(read, int) and isinstance(given, float):
            return key, f"must be a whole number, is {shown(given)}", NO_POINT
    return None


def _wrong_in(read: BaseModel, given: Mapping[str, Any], key: str) -> _Wrong | None:
    fields = type(read).model_fields
    for name, value in given.items():
        found = (
            name if name in fields else next((f for f, info in fields.items() if info.alias == name), None)
        )
        if found is None:  # a key of a part that reads its own, beside those of this model
            parts = [part for part in _parts(read) if name in type(part).model_fields]
            wrong = next(
                (w for part in parts if (w := _wrong_in(part, {name: value}, key)) is not None), None
            )
        else:
            # only text may have a spelling of its own: of all else there is nothing to look up
            spelt = isinstance(value, str | list | tuple | Mapping) and _takes_text(fields[found])
            wrong = _wrong(getattr(read, found), value, _under(key, name), takes_text=spelt)
        if wrong is not None:
            return wrong
    return None


def _first(pairs: Sequence[tuple[Any, Any, str]], *, takes_text: bool) -> _Wrong | None:
    return next(
        (
            w
            for read, given, key in pairs
            if (w := _wrong(read, given, key, takes_text=takes_text)) is not None
        ),
        None,
    )


def _parts(read: BaseModel) -> list[BaseModel]:
    """Models that it made of the keys that it does not know itself: the meters of `[power]`."""
    held = (read.__pydantic_private__ or {}).values()
    return [part for each in held if _listed(each) for part in each if isinstance(part, BaseModel)]


def _takes_text(info: Any) -> bool:
    """Whether a key has a spelling of its own, as a duration has."""
    metadata = info.metadata if isinstance(info, FieldInfo) else getattr(info, "__metadata__", ())
    if any(isinstance(each, BeforeValidator | WrapValidator) for each in metadata):
        return True
    inner = info.annotation if isinstance(info, FieldInfo) else info
    return any(
        _takes_text(each) for each in get_args(inner) if each is not info and not isinstance(each, str)
    )


def _under(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)


def _listed(value: object) -> bool:
    return isinstance(value, list | tuple)

"""The base of all documents: frozen, no unknown keys, finite numbers, RFC 3339 UTC times, errors of one line."""

import difflib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from carbonsched.errors import InputError
from carbonsched.model.error_words import key_path, words
from carbonsched.model.limits import limits_of
from carbonsched.text import one_line
from carbonsched.units import seconds

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
"""Times that are taken: a century may be added to any, or taken away, and it is a time still."""


def utc(value: datetime) -> datetime:
    """`value` in UTC. Raises ValueError, a hint in its text: no time zone, or not of the years 1970 to 2999."""
    if value.tzinfo is None:
        raise ValueError("has no time zone; write it in UTC with a trailing Z")
    # compared before it is converted: at the ends of what datetime holds that overflows
    if not _FIRST <= value < _LAST:
        raise ValueError("lies outside the years 1970 to 2999")
    return value.astimezone(UTC)


def rfc3339(at: datetime) -> str:
    """A UTC time as every document writes it: `2026-11-22T10:00:00.250Z`, milliseconds kept."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


UtcTime = Annotated[
    datetime,
    AfterValidator(utc),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A timezone-aware time of the years 1970 to 2999, kept in UTC; naive times are refused."""

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIMES: TypeAdapter[datetime] = TypeAdapter(UtcTime)
_SHOWN = 60


def parse_time(field: str, text: str | None) -> datetime | None:
    """As people write it; a day alone is its first moment. Raises InputError that names `field`."""
    if text is None:
        return None
    try:
        return _TIMES.validate_python(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text)
    except ValidationError as e:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        hint = "write it like 2026-11-22 or 2026-11-22T10:00:00Z"
        raise InputError(field, f"{shown!r} is not a time", hint) from e


LONGEST_LINE = 4000


def _shortened(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"


Line = Annotated[str, AfterValidator(_shortened)]
"""Another program's text as one line without control characters: it is logged and shown to people."""

MOST = 1e40
"""Above all FLOPs, joules and grams there are, and far enough below where floats end that products of several still are
numbers."""
Real = Annotated[float, Field(ge=-MOST, le=MOST)]


def _weighable(grams: float) -> float:
    if grams < 1e-9:
        raise ValueError("must be a nanogram or more")
    return grams


Grams = Annotated[float, Field(gt=0, le=1e12), AfterValidator(_weighable)]
"""Of a budget: from a nanogram to a million tonnes."""

Seconds = Annotated[float, BeforeValidator(seconds, json_schema_input_type=float | str)]
"""A duration in seconds; `36h`, `90s`, `1h30m` are read too."""
Duration = Annotated[Seconds, Field(gt=0, le=315_360_000)]
"""One that takes time: above 0, and ten years at most."""


def _from_folder(name: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    return name if folder is None else str(folder / expanded(name))


def expanded(name: str) -> Path:
    """The path that `name` means, with ~ as home. Raises a refusal: no path, no such home."""
    if "\0" in name:
        raise refusal("", f"{name!r} has a NUL in it, which no path has", "fix it")
    try:
        return Path(name).expanduser()
    except RuntimeError as e:
        raise refusal("", f"{name!r} names a home that is not there", "write the whole path") from e


LocalPath = Annotated[str, AfterValidator(_from_folder)]
"""A path; a relative one is read from the folder that `Doc.parse` is given, that of the file it stands in."""


class Doc(BaseModel):
    """A document that crosses a boundary: strict at the edge, trusted inside.

    Example:
        >>> class Grams(Doc):
        ...     spent_g: float
        >>> Grams.parse({"spend_g": 1}, where="job.toml")
        Traceback (most recent call last):
        carbonsched.errors.InputError: job.toml: spend_g: unknown key; did you mean 'spent_g'?
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
    )

    @classmethod
    def parse(cls, data: object, where: str = "", folder: Path | None = None) -> Self:
        """Validate; raises InputError with one line that names the first wrong field and a hint.

        folder: what relative paths (`LocalPath`) are read from; None: they stay as they are.
        """
        try:
            _refuse_unwritable(data, where)
            return cls.model_validate(data, context={"folder": folder})
        except ValidationError as e:
            raise input_error(e, cls, where) from e
        except RecursionError as e:
            raise InputError(where, "is nested too deep to be read", "flatten it") from e

    def dump(self) -> dict[str, Any]:
        """The JSON-ready form."""
        return self.model_dump(mode="json")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe each key by the docstring below it. pydantic's `use_attribute_docstrings` would read them at every import: a tenth of a
        second before the daemon is ready, for what only a JSON Schema shows."""
        from carbonsched.model.attribute_docstrings import attribute_docstrings

        made = handler(core_schema)
        properties, docs = handler.resolve_ref_schema(made).get("properties", {}), attribute_docstrings(cls)
        for name, field in cls.model_fields.items():
            if name in docs and (found := properties.get(field.alias or name)) is not None:
                found.setdefault("description", docs[name])
        return made


class JobFolderDoc(Doc):
    """A document of the job directory: the other side may speak a newer protocol, so keys that are not known are passed over.

    Example:
        >>> class Steps(JobFolderDoc):
        ...     steps: int
        >>> Steps.parse({"steps": 40, "grams": 2.5})
        Steps(steps=40)
    """

    model_config = ConfigDict(extra="ignore")


def _refuse_unwritable(data: object, where: str, field: str = "") -> None:
    """No file name and no database takes a half of a surrogate pair or NUL; JSON can name both."""
    if isinstance(data, str):
        bad = next((c for c in data if c == "\0" or "\ud800" <= c <= "\udfff"), None)
        if bad is not None:
            what = "NUL" if bad == "\0" else f"a lone surrogate, U+{ord(bad):04X}"
            prefix = f"{where}: " if where else ""
            raise InputError(prefix + (field or "text"), f"holds {what}", "leave that character out")
    elif isinstance(data, dict):
        for key, value in data.items():
            _refuse_unwritable(key, where, f"{field}.{one_line(str(key))}".lstrip("."))
            _refuse_unwritable(value, where, f"{field}.{one_line(str(key))}".lstrip("."))
    elif isinstance(data, list | tuple):
        for n, value in enumerate(data):
            _refuse_unwritable(value, where, f"{field}[{n}]")


def refusal(field: str, problem: str, hint: str = "") -> PydanticCustomError:
    """What a validator raises about one key of its own model; `input_error` puts the path to the model before it.

    field: empty where the validator is the key's own.
    """
    # pydantic fails on half of a surrogate pair, which a user's JSON can hold
    context = {"field": one_line(field), "problem": one_line(problem), "hint": one_line(hint)}
    template = "{field}: {problem}; {hint}" if field else "{problem}; {hint}"
    return PydanticCustomError("refusal", template, context)


def input_error(error: ValidationError, model: type[BaseModel], where: str = "") -> InputError:
    """Turn pydantic's list into the one line a user can act on; the others stand in its `others`."""
    errors = error.errors(include_url=False)
    # a misspelt key also makes the right one missing: the misspelling is what the user must see
    misspelt = [e for e in errors if e["type"] == "extra_forbidden"]
    within = [e["loc"][:-1] for e in misspelt]
    others = [
        e for e in errors if e not in misspelt and not (e["type"] == "missing" and e["loc"][:-1] in within)
    ]
    # each branch of a union has its own word on the same value
    by_path: dict[tuple[int | str, ...], list[ErrorDetails]] = {}
    for each in misspelt + others:
        by_path.setdefault(_path(each, model), []).append(each)
    first, *rest = (_refused(path, each, model, where) for path, each in by_path.items())
    by_field: dict[str, InputError] = {}
    fields = [one.field for one in (first, *rest)]
    for one in rest:  # a list of bad parts has one of its length
        if one.field != first.field and not any(
            field.startswith((f"{one.field}.", f"{one.field}[")) for field in fields
        ):
            by_field.setdefault(one.field, one)
    first.others = tuple(by_field.values())
    return first


def _path(error: ErrorDetails, model: type[BaseModel]) -> tuple[int | str, ...]:
    """The keys and positions to a value."""
    # of a key that is not known the last part is the user's own word, whatever it looks like
    unknown = error["type"] == "extra_forbidden"
    steps = error["loc"]
    return tuple(
        part for i, part in enumerate(steps) if (unknown and i == len(steps) - 1) or not _is_tag(part, model)
    )


def _refused(
    path: tuple[int | str, ...], errors: list[ErrorDetails], model: type[BaseModel], where: str
) -> InputError:
    """Of one value."""
    field = key_path(path)
    # of the whole document there is no key to name
    prefix = f"{where}: " if where and field else where
    first = next((each for each in errors if each["type"] == "refusal"), errors[0])
    if first["type"] == "refusal":
        said = first["ctx"]
        parts = (*path, said["field"]) if said["field"] else path
        named = key_path(parts)
        return InputError(
            f"{where}: {named}" if where and named else where or named, said["problem"], said["hint"]
        )
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, list(path[:-1]))
        close = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys here: {', '.join(sorted(known))}"
        return InputError(prefix + field, "unknown key", hint)
    if first["type"] == "missing":
        return InputError(prefix + field, "is missing", "add it")
    return InputError(prefix + field, *words(errors, limits_of(model, path)))


_BRANCHES = ("int", "float", "str", "bool")


def _is_tag(part: int | str, model: type[BaseModel]) -> bool:
    # pydantic puts the names of union branches into `loc`; a user knows only keys and positions
    return isinstance(part, str) and ("[" in part or part in _BRANCHES or part.startswith("constrained-"))


def _known_keys(model: type[BaseModel], path: list[int | str]) -> list[str]:
    here: type[BaseModel] = model
    for part in path:
        if isinstance(part, int):
            continue
        field = here.model_fields.get(part) or _by_alias(here, part)
        below = _models_in(field.annotation) if field else []
        if not below:
            return []
        here = below[0]
    return [info.alias or name for name, info in here.model_fields.items()]


def _by_alias(model: type[BaseModel], alias: str) -> FieldInfo | None:
    return next((info for info in model.model_fields.values() if info.alias == alias), None)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    found: list[type[BaseModel]] = []
    for inner in getattr(annotation, "__args__", ()):
        found += _models_in(inner)
    return found

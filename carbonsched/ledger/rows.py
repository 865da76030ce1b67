"""Flattens an interval to a row, writes the row's canonical JSON, and computes the hash that chains rows.

Canonical JSON: every field of the row but `prev_hash` and `hash`, and but those since schemas 0003 and 0004 that are null, keys sorted, no spaces, UTF-8; times as RFC 3339 UTC
with six decimals; floats in the shortest form that reads back the same. hash = SHA-256(prev_hash + canonical JSON),
in hex; the row before the first has the hash of 64 zeros.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection

from carbonsched.errors import LedgerError
from carbonsched.ledger.tables import INTERVALS, SCHEMA
from carbonsched.model.energy import Account, Interval
from carbonsched.model.grid import Reading, Source
from carbonsched.units import J_PER_KWH, MJ_PER_J, grams

GENESIS: Final = "0" * 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICK: Final = timedelta(microseconds=1)
_MAX_INT: Final = 2**63 - 1
_FLOATS: Final = frozenset(c.name for c in INTERVALS.columns if c.type.python_type is float)
_KINDS: Final = tuple((c.name, c.nullable, c.type.python_type) for c in INTERVALS.columns)
_NAMES: Final = tuple(name for name, _, _ in _KINDS)
_VALUES: Final = itemgetter(*_NAMES)
_BOOLS: Final = tuple(name for name, nullable, kind in _KINDS if kind is bool and not nullable)
_SEEN: Final[set[tuple[type, ...]]] = set()
"""Types that were already checked against their columns."""
_MOST_SEEN: Final = 1000
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_CHAIN: Final = frozenset({"prev_hash", "hash"})
_LATER: Final = (
    *("supply_share", "supply_g_per_kwh", "supply_source", "on_site_grams"),
    *("eur_per_kwh", "price_source", "eur"),
    "replaces",
    *("schema", "tier", "rows", "first_id", "first_hash", "last_hash"),
)
"""Columns added since schema 0003. Older rows must hash as they did then, so null counts as absent."""
_FIRST_NAMED: Final = 5
ROW_SCHEMA: Final = int(SCHEMA)
"""Each new row names its schema: its hash covers the columns of that schema."""


def micros(at: datetime) -> int:
    """Microseconds since 1970 UTC, exact."""
    return (at - _EPOCH) // _TICK


def maybe_micros(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


def moment(us: int) -> datetime:
    """The inverse of `micros`."""
    return _EPOCH + us * _TICK


def maybe_moment(us: int | None) -> datetime | None:
    return None if us is None else moment(us)


@lru_cache(maxsize=4096)
def stamp(us: int) -> str:
    """As exports write times: RFC 3339 UTC with six decimals."""
    return moment(us).isoformat(timespec="microseconds").replace("+00:00", "Z")


def flatten(interval: Interval) -> dict[str, Any]:
    """The columns of one interval, without id and hashes. Raises LedgerError if they contradict each other."""
    delta, supply, price = interval.delta, interval.supply, interval.price
    _check(interval)
    row: dict[str, Any] = {
        "board": delta.device,
        "start_us": micros(delta.start),
        "end_us": micros(delta.end),
        "energy_mj": delta.energy_mj,
        "power_w": delta.power_w,
        "method": str(delta.method),
        "counter_epoch": delta.counter_epoch,
        "counter_start_mj": delta.counter_start_mj,
        "counter_end_mj": delta.counter_end_mj,
        "bridged": delta.bridged,
        "coverage": delta.coverage,
        "reason": delta.reason,
        "meter": delta.meter,
        "account": str(interval.account),
        "job_id": interval.job_id,
        "segment": interval.segment,
        "rho": interval.rho,
        **_intensity_columns(interval.intensity),
        "pue": interval.pue,
        "pue_source": interval.pue_source,
        "grams": interval.grams,
        "supply_share": None if supply is None else supply.share,
        "supply_g_per_kwh": None if supply is None else supply.g_per_kwh,
        "supply_source": None if supply is None else _source(supply.source),
        "on_site_grams": interval.on_site_grams,
        "eur_per_kwh": None if price is None else price.eur_per_kwh,
        "price_source": None if price is None else _source(price.source),
        "eur": interval.eur,
        "replaces": None,
        **dict.fromkeys(("schema", "tier", "rows", "first_id", "first_hash", "last_hash")),
    }
    for name in _FLOATS:
        value = row[name]
        if value is not None:
            if not math.isfinite(value):
                raise LedgerError(f"the ledger refuses a row whose {name} is {value}; unknown is null")
            # databases do not keep the sign of zero, and the hash must match what they return
            row[name] = float(value) + 0.0
    return row


_NO_INTENSITY: Final[Mapping[str, Any]] = dict.fromkeys(
    (
        *("g_per_kwh", "intensity_start_us", "intensity_end_us", "provider", "zone", "basis", "kind"),
        *("issued_us", "fetched_us", "body_sha256", "time_compression", "note", "grid_start_us"),
    )
)
_LAST_INTENSITY: list[tuple[Reading, Mapping[str, Any]]] = []
"""The last reading and its columns: all boards share it for many ticks."""


def _intensity_columns(reading: Reading | None) -> Mapping[str, Any]:
    """The columns of an intensity, which never change."""
    if reading is None:
        return _NO_INTENSITY
    last = _LAST_INTENSITY[:1]
    if last and last[0][0] is reading:
        return last[0][1]
    source = reading.source
    told = {
        "g_per_kwh": reading.g_per_kwh,
        "intensity_start_us": micros(reading.start),
        "intensity_end_us": micros(reading.end),
        "provider": source.provider,
        "zone": source.zone,
        "basis": None if source.basis is None else str(source.basis),
        "kind": str(source.kind),
        "issued_us": maybe_micros(source.issued_at),
        "fetched_us": micros(source.fetched_at),
        "body_sha256": source.body_sha256,
        "time_compression": source.time_compression,
        "note": source.note,
        "grid_start_us": maybe_micros(reading.grid_start),
    }
    _LAST_INTENSITY[:] = [(reading, told)]
    return told


def insert_rows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert whole rows in order, through the driver itself, which takes a third of the time of one SQLAlchemy statement per row."""
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    names = ",".join(f'"{name}"' for name in _NAMES)
    text = f"INSERT INTO {INTERVALS.name} ({names}) VALUES ({','.join([mark] * len(_NAMES))})"  # noqa: S608
    connection.exec_driver_sql(text, [_VALUES(row) for row in rows])


def plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row as documents write it, without hashes: every `*_us` column is a time, named without that suffix."""
    fields: dict[str, Any] = {}
    for name, value in row.items():
        said, write = _written(name)
        if said is not None:
            fields[said] = value if write is None or value is None else write(value)
    return fields


@cache
def _written(name: str) -> tuple[str | None, Callable[[Any], Any] | None]:
    """(name of a column in documents, None: it is in none; how to write its values, None: unchanged)."""
    if name in _CHAIN:
        return None, None
    if name.endswith("_us"):
        return name.removesuffix("_us"), stamp
    return name, bool if name == "bridged" else float if name in _FLOATS else None


def _source(source: Source) -> str:
    """The source of a value as a row stores it: JSON without null and unset keys."""
    return json.dumps(
        source.model_dump(mode="json", exclude_defaults=True), sort_keys=True, ensure_ascii=False
    )


def canonical(row: Mapping[Any, Any]) -> str:
    """The text that a row's hash is computed from. Raises ValueError, TypeError or OverflowError for values that no row can hold."""
    parts = []
    for name, begin, write, later in _written_as(tuple(row)):
        value = row[name]
        if value is not None:
            parts.append(begin + write(value))
        elif not later:
            parts.append(begin + "null")
    return "{" + ",".join(parts) + "}"


@cache
def _written_as(names: tuple[str, ...]) -> tuple[tuple[str, str, Callable[[Any], str], bool], ...]:
    """For each column, ordered by its name in documents: (column, `"name":`, how to write its values, whether to omit null)."""
    found = []
    for name in names:
        said, plain_of = _written(name)
        if said is not None:
            write = _stamp_text if plain_of is stamp else _float_text if plain_of is float else _text
            if plain_of is bool:
                write = _bool_text
            found.append((said, (name, f"{_ENCODER.encode(said)}:", write, said in _LATER)))
    return tuple(each for _, each in sorted(found))


def _bool_text(value: Any) -> str:
    return "true" if value else "false"


def _float_text(value: Any) -> str:
    return float.__repr__(value) if type(value) is float and math.isfinite(value) else _text(float(value))


@lru_cache(maxsize=4096)
def _stamp_text(us: int) -> str:
    return f'"{stamp(us)}"'


def _text(value: Any) -> str:
    """As JSON; faster than the encoder, value by value."""
    kind = type(value)
    if kind is str:
        return _string(value)
    if kind is int:
        return int.__repr__(value)
    if kind is float and math.isfinite(value):
        return float.__repr__(value)
    return _ENCODER.encode(value)


@lru_cache(maxsize=4096)
def _string(value: str) -> str:
    return _ENCODER.encode(value)


def chained(prev_hash: str, text: str) -> str:
    """SHA-256 of the previous hash and this row's canonical JSON, in hex."""
    return hashlib.sha256((prev_hash + text).encode()).hexdigest()


def expected_grams(row: Mapping[Any, Any]) -> float | None:
    """energy × PUE × intensity from a row's own columns; None where energy or intensity is unknown."""
    if row["energy_mj"] is None or row["g_per_kwh"] is None:
        return None
    return grams(row["energy_mj"] / MJ_PER_J, row["g_per_kwh"], row["pue"])


_GRAMS_OF: Final = "energy × PUE × intensity"


def derived(row: Mapping[Any, Any]) -> Iterator[tuple[str, float | None, str]]:
    """(column, expected value, how it is derived) of every figure that other columns determine."""
    known = row["energy_mj"] is not None and row["g_per_kwh"] is not None
    yield "grams", expected_grams(row), _GRAMS_OF
    share, own = row.get("supply_share"), row.get("supply_g_per_kwh")
    mixed = (
        None if share is None or own is None or not known else (1 - share) * row["g_per_kwh"] + share * own
    )
    yield (
        "on_site_grams",
        None if mixed is None else grams(row["energy_mj"] / MJ_PER_J, mixed, row["pue"]),
        "energy × PUE × the mix of intensity and supply",
    )
    price = row.get("eur_per_kwh")
    cost = (
        None
        if price is None or row["energy_mj"] is None
        else row["energy_mj"] / MJ_PER_J / J_PER_KWH * row["pue"] * price
    )
    yield "eur", cost, "energy × PUE × price"


def figures_problem(row: Mapping[Any, Any]) -> str | None:
    """What is wrong with a row's grams or euros, in words; None if they agree with its other columns."""
    for name, want, made_of in derived(row):
        if said := _figure_problem(name, want, row.get(name), made_of):
            return said
    return None


def _figure_problem(name: str, want: float | None, have: float | None, made_of: str) -> str | None:
    if want is None or have is None:
        return None if want is have else f"{name} are {have} where {made_of} gives {want}"
    if math.isclose(want, have, rel_tol=1e-9, abs_tol=1e-15):
        return None
    return f"{name} are {have!r} where {made_of} gives {want!r}"


def contradiction(row: Mapping[Any, Any]) -> str | None:
    """What in a stored row carbonsched never writes, in words: a value of another type, or two that exclude each other."""
    kinds = tuple([type(row[name]) for name in _NAMES])
    if kinds not in _SEEN or not _plain_figures(row):
        if said := _column_contradiction(row):
            return said
        if len(_SEEN) < _MOST_SEEN:
            _SEEN.add(kinds)
    if row["end_us"] < row["start_us"]:
        return "it ends before it starts"
    if row["energy_mj"] is not None and row["energy_mj"] < 0:
        return f"energy of {row['energy_mj']} mJ is not possible"
    if row["energy_mj"] is None and not row["reason"]:
        return "unknown energy needs a reason"
    if row["replaces"] is not None and (row["energy_mj"] is None or not 0 < row["replaces"] < row["id"]):
        return f"it cannot stand for row {row['replaces']}"
    if (row["account"] == Account.JOB) != (row["job_id"] is not None):
        return f"account {row['account']} with job {row['job_id']}"
    return _merge_contradiction(row)


def _plain_figures(row: Mapping[Any, Any]) -> bool:
    """Whether values are valid whose type alone does not decide it."""
    for name in _FLOATS:
        value = row[name]
        if value is not None and not math.isfinite(value):
            return False
    return all(row[name] in (0, 1) for name in _BOOLS)


def _column_contradiction(row: Mapping[Any, Any]) -> str | None:
    for name, nullable, kind in _KINDS:
        value = row[name]
        if value is None:
            if not nullable:
                return f"{name} is null"
        elif (type(value) is not kind or kind is float) and not _fits(value, kind):
            return f"{name} holds {value!r}"
    return None


def _merge_contradiction(row: Mapping[Any, Any]) -> str | None:
    """What is wrong with a row's schema, and with the rows it stands for."""
    if row["schema"] is not None and not _FIRST_NAMED <= row["schema"] <= ROW_SCHEMA:
        return f"it names schema {row['schema']}, which no carbonsched up to this one has written"
    said = [row[name] for name in ("tier", "rows", "first_id", "first_hash", "last_hash")]
    if said == [None] * len(said):
        return None
    if row["schema"] is None or None in said:
        return "what it stands for is told in part"
    if not 1 <= row["rows"] <= row["id"] - row["first_id"] + 1 or row["first_id"] < 1:
        return f"it cannot stand for {row['rows']} rows from row {row['first_id']} on"
    return None


def _fits(value: object, kind: type) -> bool:
    """Whether a value is of its column's type: databases accept others too."""
    if kind is bool:
        return value in (0, 1) and isinstance(value, int)
    if kind is float:
        return isinstance(value, float | int) and math.isfinite(value)
    return isinstance(value, kind) and not isinstance(value, bool)


def _check(interval: Interval) -> None:
    if said := _interval_problem(interval):
        delta = interval.delta
        raise LedgerError(
            f"the ledger refuses a row of device {delta.device!r} from {delta.start.isoformat()}: {said}"
        )


def _interval_problem(interval: Interval) -> str | None:
    delta = interval.delta
    if delta.end < delta.start:
        return "it ends before it starts"
    if delta.energy_mj is not None and not 0 <= delta.energy_mj <= _MAX_INT:
        return f"energy of {delta.energy_mj} mJ is not possible"
    for counter in (delta.counter_start_mj, delta.counter_end_mj):
        if counter is not None and not 0 <= counter <= _MAX_INT:
            return f"a counter of {counter} mJ is not possible"
    if delta.energy_mj is None and not delta.reason:
        return "unknown energy needs a reason"
    if (interval.account is Account.JOB) != (interval.job_id is not None):
        return f"account {interval.account} with job {interval.job_id}"
    facts = {
        "energy_mj": delta.energy_mj,
        "g_per_kwh": None if interval.intensity is None else interval.intensity.g_per_kwh,
        "pue": interval.pue,
    }
    return _figure_problem("grams", expected_grams(facts), interval.grams, _GRAMS_OF)

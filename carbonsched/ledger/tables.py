"""The ledger's schema. Times are integer microseconds since 1970 UTC: they sort, subtract and compare in any database.

`carbonsched/ledger/migrations` makes these tables; a test compares the two. The conditions of partial indexes are named for SQLite alone:
to name them for PostgreSQL too would load its drivers into every daemon.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    text,
)

SCHEMA: Final = "0007"
"""The newest migration; a ledger with another one is migrated up or refused."""

METADATA: Final = MetaData()

# in SQLite only this spelling is the row's own number, and needs no second index
_ID: Final = BigInteger().with_variant(Integer, "sqlite")


def _naming(key: str) -> Mapping[str, TextClause]:
    """Dialect → the condition that a job's specification, canonical JSON, gives this key a text; where it has none it is null."""
    return {
        "sqlite": text(f'instr(submitted, \'"{key}":"\') > 0'),
        "postgresql": text(f'strpos(submitted, \'"{key}":"\') > 0'),
    }


WITH_KEY: Final = _naming("dedupe_key")
WITH_POOL: Final = _naming("pool")

INTERVALS: Final = Table(
    "intervals",
    METADATA,
    # given by us, without holes: a missing row shows
    Column("id", _ID, primary_key=True, autoincrement=False),
    Column("board", String(128), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("energy_mj", BigInteger),
    Column("power_w", Float(53)),
    Column("method", String(16), nullable=False),
    Column("counter_epoch", String(128), nullable=False),
    Column("counter_start_mj", BigInteger),
    Column("counter_end_mj", BigInteger),
    Column("bridged", Boolean, nullable=False),
    Column("coverage", Float(53), nullable=False),
    Column("reason", Text),
    Column("meter", Text, nullable=False),
    Column("account", String(16), nullable=False),
    Column("job_id", String(64)),
    Column("segment", Integer),
    Column("rho", Float(53)),
    Column("g_per_kwh", Float(53)),
    Column("intensity_start_us", BigInteger),
    Column("intensity_end_us", BigInteger),
    Column("provider", Text),
    Column("zone", Text),
    Column("basis", String(32)),
    Column("kind", String(16)),
    Column("issued_us", BigInteger),
    Column("fetched_us", BigInteger),
    Column("body_sha256", String(64)),
    Column("time_compression", Float(53)),
    Column("note", Text),
    Column("grid_start_us", BigInteger),
    Column("pue", Float(53), nullable=False),
    Column("pue_source", Text, nullable=False),
    Column("grams", Float(53)),
    # since 0003, after all that were there before: null where the box has no supply of its own, or no price is known
    Column("supply_share", Float(53)),
    Column("supply_g_per_kwh", Float(53)),
    Column("supply_source", Text),
    Column("on_site_grams", Float(53)),
    Column("eur_per_kwh", Float(53)),
    Column("price_source", Text),
    Column("eur", Float(53)),
    # since 0004: the row of unknown energy that this one stands for
    Column("replaces", BigInteger),
    # since 0005: as which schema the row was written, null before that one; and of a merged row what it stands for
    Column("schema", Integer),
    Column("tier", Integer),
    Column("rows", Integer),
    Column("first_id", BigInteger),
    Column("first_hash", String(64)),
    Column("last_hash", String(64)),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    # covers every column the sums need, so that a job's totals never touch its rows
    Index(
        "intervals_by_job",
        "job_id",
        "segment",
        "board",
        "method",
        "bridged",
        "start_us",
        "end_us",
        "energy_mj",
        "grams",
        "g_per_kwh",
        "account",
        "on_site_grams",
        "supply_share",
        "eur",
        "eur_per_kwh",
        "rows",
    ),
    Index("intervals_by_board", "board", "id"),
    # few rows name one
    Index(
        "intervals_replacing",
        "replaces",
        sqlite_where=text("replaces IS NOT NULL"),
    ),
    Index(
        "intervals_by_counter", "board", "counter_epoch", "counter_start_mj", "counter_end_mj", "energy_mj"
    ),
    Index("intervals_by_start", "start_us"),
)

ROLLUPS: Final = Table(
    "rollups",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=False),
    # of which rows: 0 as they were written, 1 minutes, 2 hours
    Column("tier", Integer, nullable=False),
    # up to that row they are merged, and where their chain stood there
    Column("through_id", BigInteger, nullable=False),
    Column("through_hash", String(64), nullable=False),
    Column("rows", Integer, nullable=False),
    Column("energy_mj", BigInteger, nullable=False),
    Column("grams", Float(53), nullable=False),
    # where the chain of the merged rows stands since
    Column("merged_rows", Integer, nullable=False),
    Column("merged_hash", String(64), nullable=False),
    # file of the archive that has the rows since, and its bytes with them
    Column("archive", Text),
    Column("archive_bytes", BigInteger),
    Index("rollups_by_tier", "tier", "through_id"),
)

JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("submitted", Text, nullable=False),
    Column("submitted_us", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("budget_g", Float(53)),
    Column("started_us", BigInteger),
    Column("ended_us", BigInteger),
    # a list of jobs, from the index alone: a row has kilobytes of specification
    Index("jobs_by_state", "state", "ended_us", "submitted_us", "id"),
    Index("jobs_by_submission", "submitted_us", "id"),
    Index(
        "jobs_started",
        "submitted_us",
        "id",
        sqlite_where=text("started_us IS NOT NULL"),
    ),
    # few jobs have either; SQLite uses these only in queries that repeat the condition word for word
    Index(
        "jobs_with_key",
        "submitted_us",
        "id",
        sqlite_where=WITH_KEY["sqlite"],
    ),
    Index(
        "jobs_with_pool",
        "submitted_us",
        "id",
        sqlite_where=WITH_POOL["sqlite"],
    ),
)

JOURNAL: Final = Table(
    "journal",
    METADATA,
    Column("id", _ID, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("job_id", String(64)),
    Column("kind", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", Text, nullable=False),
    # where the interval chain stood: rows cut off its end are missed by the next entry here
    Column("interval_id", BigInteger, nullable=False),
    Column("interval_hash", String(64), nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("journal_by_kind", "job_id", "kind", "id"),
)

SEGMENTS: Final = Table(
    "segments",
    METADATA,
    Column("job_id", String(64), ForeignKey("jobs.id"), primary_key=True),
    Column("k", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("done", Text, nullable=False),
    Column("directive", Text),
)

OFFSETS: Final = Table(
    "offsets",
    METADATA,
    Column("job_id", String(64), ForeignKey("jobs.id"), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)

HOURS: Final = Table(
    "hours",
    METADATA,
    Column("hour_us", _ID, primary_key=True, autoincrement=False),
    # of the last row that begins in it
    Column("end_us", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("energy_mj", BigInteger, nullable=False),
    # what reports need of its rows, JSON: a cache, made anew from them where one of them is added or settled
    Column("sums", Text, nullable=False),
)

"""The first schema: intervals, jobs, journal, segments, offsets, and the triggers that make two of them append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
APPEND_ONLY = ("intervals", "journal")


def upgrade() -> None:
    _intervals()
    _jobs_and_journal()
    _segments_and_offsets()
    for table in APPEND_ONLY:
        _refuse_changes(table)


def downgrade() -> None:
    raise NotImplementedError("a ledger only grows; restore the backup made before the upgrade")


def _intervals() -> None:
    op.create_table(
        "intervals",
        sa.Column("id", ID, primary_key=True, autoincrement=False),
        sa.Column("board", sa.String(128), nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("energy_mj", sa.BigInteger),
        sa.Column("power_w", sa.Float(53)),
        sa.Column("method", sa.String(16), nullable=False),
        sa.Column("counter_epoch", sa.String(128), nullable=False),
        sa.Column("counter_start_mj", sa.BigInteger),
        sa.Column("counter_end_mj", sa.BigInteger),
        sa.Column("bridged", sa.Boolean, nullable=False),
        sa.Column("coverage", sa.Float(53), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("meter", sa.Text, nullable=False),
        sa.Column("account", sa.String(16), nullable=False),
        sa.Column("job_id", sa.String(64)),
        sa.Column("segment", sa.Integer),
        sa.Column("rho", sa.Float(53)),
        sa.Column("g_per_kwh", sa.Float(53)),
        sa.Column("intensity_start_us", sa.BigInteger),
        sa.Column("intensity_end_us", sa.BigInteger),
        sa.Column("provider", sa.Text),
        sa.Column("zone", sa.Text),
        sa.Column("basis", sa.String(32)),
        sa.Column("kind", sa.String(16)),
        sa.Column("issued_us", sa.BigInteger),
        sa.Column("fetched_us", sa.BigInteger),
        sa.Column("body_sha256", sa.String(64)),
        sa.Column("time_compression", sa.Float(53)),
        sa.Column("note", sa.Text),
        sa.Column("grid_start_us", sa.BigInteger),
        sa.Column("pue", sa.Float(53), nullable=False),
        sa.Column("pue_source", sa.Text, nullable=False),
        sa.Column("grams", sa.Float(53)),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    covering = ["job_id", "segment", "board", "method", "bridged", "start_us", "end_us", "energy_mj", "grams"]
    op.create_index("intervals_by_job", "intervals", [*covering, "g_per_kwh", "account"])
    op.create_index("intervals_by_board", "intervals", ["board", "id"])
    counters = ["counter_epoch", "counter_start_mj", "counter_end_mj"]
    op.create_index("intervals_by_counter", "intervals", ["board", *counters, "energy_mj"])
    op.create_index("intervals_by_start", "intervals", ["start_us"])


def _jobs_and_journal() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("submitted", sa.Text, nullable=False),
        sa.Column("submitted_us", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("budget_g", sa.Float(53)),
        sa.Column("started_us", sa.BigInteger),
        sa.Column("ended_us", sa.BigInteger),
    )
    op.create_table(
        "journal",
        sa.Column("id", ID, primary_key=True, autoincrement=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("job_id", sa.String(64)),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("interval_id", sa.BigInteger, nullable=False),
        sa.Column("interval_hash", sa.String(64), nullable=False),
        sa.Column("prev_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("journal_by_job", "journal", ["job_id", "id"])


def _segments_and_offsets() -> None:
    op.create_table(
        "segments",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("k", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("done", sa.Text, nullable=False),
        sa.Column("directive", sa.Text),
    )
    op.create_table(
        "offsets",
        sa.Column("job_id", sa.String(64), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
    )


def _refuse_changes(table: str) -> None:
    message = f"{table} is append-only"
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE FUNCTION {table}_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{message}'; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_refuse()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        )

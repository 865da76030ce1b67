"""Rows that grow old are merged: what a merged row stands for, up to where that was done, and a trigger that lets such rows go alone.

Rows of before name no schema, and hash as they did (`rows.canonical`).
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_SUMMED = [
    *("job_id", "segment", "board", "method", "bridged", "start_us", "end_us", "energy_mj", "grams"),
    *("g_per_kwh", "account", "on_site_grams", "supply_share", "eur", "eur_per_kwh", "rows"),
]
_MERGED = "SELECT 1 FROM rollups WHERE tier = coalesce(OLD.tier, 0) AND through_id >= OLD.id"


def upgrade() -> None:
    for name in ("schema", "tier", "rows"):
        op.add_column("intervals", sa.Column(name, sa.Integer))
    op.add_column("intervals", sa.Column("first_id", sa.BigInteger))
    for name in ("first_hash", "last_hash"):
        op.add_column("intervals", sa.Column(name, sa.String(64)))
    # covers every column the sums need
    op.drop_index("intervals_by_job", "intervals")
    op.create_index("intervals_by_job", "intervals", _SUMMED)
    op.create_table(
        "rollups",
        sa.Column("id", ID, primary_key=True, autoincrement=False),
        sa.Column("tier", sa.Integer, nullable=False),
        sa.Column("through_id", sa.BigInteger, nullable=False),
        sa.Column("through_hash", sa.String(64), nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("energy_mj", sa.BigInteger, nullable=False),
        sa.Column("grams", sa.Float(53), nullable=False),
        sa.Column("merged_rows", sa.Integer, nullable=False),
        sa.Column("merged_hash", sa.String(64), nullable=False),
        sa.Column("archive", sa.Text),
        sa.Column("archive_bytes", sa.BigInteger),
    )
    op.create_index("rollups_by_tier", "rollups", ["tier", "through_id"])
    if op.get_bind().dialect.name == "postgresql":
        _guard_postgres()
    else:
        _guard_sqlite()


def downgrade() -> None:
    raise NotImplementedError("a ledger only grows; restore the backup made before the upgrade")


def _guard_sqlite() -> None:
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER rollups_no_{verb.lower()} BEFORE {verb} ON rollups "
            "BEGIN SELECT RAISE(ABORT, 'rollups is append-only'); END"
        )
    op.execute("DROP TRIGGER intervals_no_delete")
    op.execute(
        f"CREATE TRIGGER intervals_no_delete BEFORE DELETE ON intervals WHEN NOT EXISTS ({_MERGED}) "
        "BEGIN SELECT RAISE(ABORT, 'intervals is append-only'); END"
    )


def _guard_postgres() -> None:
    op.execute(
        "CREATE FUNCTION rollups_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'rollups is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER rollups_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rollups "
        "FOR EACH STATEMENT EXECUTE FUNCTION rollups_refuse()"
    )
    op.execute("DROP TRIGGER intervals_append_only ON intervals")
    op.execute(
        "CREATE TRIGGER intervals_append_only BEFORE UPDATE OR TRUNCATE ON intervals "
        "FOR EACH STATEMENT EXECUTE FUNCTION intervals_refuse()"
    )
    op.execute(
        "CREATE FUNCTION intervals_keep() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF EXISTS ({_MERGED}) THEN RETURN OLD; END IF; "
        "RAISE EXCEPTION 'intervals is append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER intervals_no_delete BEFORE DELETE ON intervals "
        "FOR EACH ROW EXECUTE FUNCTION intervals_keep()"
    )

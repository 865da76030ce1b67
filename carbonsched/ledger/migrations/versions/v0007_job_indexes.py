"""Indexes of jobs: lists, estimates and look-ups of a key need not walk the specifications of ten thousand jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ORDER = ["submitted_us", "id"]


def upgrade() -> None:
    op.create_index("jobs_by_state", "jobs", ["state", "ended_us", *ORDER])
    op.create_index("jobs_by_submission", "jobs", ORDER)
    # instr is strpos on PostgreSQL
    find = "strpos" if op.get_bind().dialect.name == "postgresql" else "instr"
    for name, condition in (
        ("jobs_started", "started_us IS NOT NULL"),
        ("jobs_with_key", f'{find}(submitted, \'"dedupe_key":"\') > 0'),
        ("jobs_with_pool", f'{find}(submitted, \'"pool":"\') > 0'),
    ):
        where = sa.text(condition)
        op.create_index(name, "jobs", ORDER, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    raise NotImplementedError("a ledger only grows; restore the backup made before the upgrade")

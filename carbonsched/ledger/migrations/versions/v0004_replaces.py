"""Which row of unknown energy a row of recovered energy stands for. Rows of before name none, and hash as they did (`rows.canonical`)."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("intervals", sa.Column("replaces", sa.BigInteger))
    named = sa.text("replaces IS NOT NULL")
    op.create_index(
        "intervals_replacing", "intervals", ["replaces"], sqlite_where=named, postgresql_where=named
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger only grows; restore the backup made before the upgrade")

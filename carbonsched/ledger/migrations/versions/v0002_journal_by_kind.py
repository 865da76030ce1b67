"""The journal's index by kind: what happened to a job is found without its thousands of notes."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("journal_by_kind", "journal", ["job_id", "kind", "id"])
    op.drop_index("journal_by_job", "journal")


def downgrade() -> None:
    raise NotImplementedError("a ledger only grows; restore the backup made before the upgrade")

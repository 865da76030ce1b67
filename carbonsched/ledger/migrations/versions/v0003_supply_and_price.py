"""What the box's own supply gave, and what a kWh cost. Rows of before have neither, and hash as they did (`rows.canonical`)."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("supply_share", "supply_g_per_kwh", "on_site_grams", "eur_per_kwh", "eur"):
        op.add_column("intervals", sa.Column(name, sa.Float(53)))
    for name in ("supply_source", "price_source"):
        op.add_column("intervals", sa.Column(name, sa.Text))


def downgrade() -> None:
    raise NotImplementedError("a ledger only grows; restore the backup made before the upgrade")

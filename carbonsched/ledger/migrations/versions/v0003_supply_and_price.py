"""What the box's own supply gave, and what a kWh cost. Rows of before have neither, and hash as they did (`rows.canonical`)."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SUMMED = [
    *(
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
    ),
    *("on_site_grams", "supply_share", "eur", "eur_per_kwh"),
]


def upgrade() -> None:
    for name in ("supply_share", "supply_g_per_kwh", "on_site_grams", "eur_per_kwh", "eur"):
        op.add_column("intervals", sa.Column(name, sa.Float(53)))
    for name in ("supply_source", "price_source"):
        op.add_column("intervals", sa.Column(name, sa.Text))
    # covers every column the sums need
    op.drop_index("intervals_by_job", "intervals")
    op.create_index("intervals_by_job", "intervals", _SUMMED)


def downgrade() -> None:
    raise NotImplementedError("a ledger only grows; restore the backup made before the upgrade")

"""The same ledger on a PostgreSQL server: give an empty database's URL in CARBONSCHED_TEST_POSTGRES to run these."""

import os

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from support.intervals import intervals
from support.story import submitted, tell

from carbonsched.errors import LedgerError
from carbonsched.ledger import Ledger
from carbonsched.ledger.tables import METADATA

URL = os.environ.get("CARBONSCHED_TEST_POSTGRES", "")


@pytest.mark.skipif(not URL, reason="CARBONSCHED_TEST_POSTGRES is not set")
def test_the_story_is_told_alike() -> None:
    with Ledger.open("sqlite://") as small:
        tell(small, submitted())
        here = (small.totals("scitldr-1"), small.verify().conservation, small.marks(), intervals(small))
    with Ledger.open(URL) as ledger:
        tell(ledger, submitted())
        assert ledger.verify().ok
        assert (ledger.totals("scitldr-1").energy_mj, ledger.verify().conservation) == (
            here[0].energy_mj,
            here[1],
        )
        assert (ledger.marks(), intervals(ledger)) == here[2:]
        for verb in ("UPDATE intervals SET grams = 0", "DELETE FROM journal", "TRUNCATE intervals"):
            with pytest.raises(LedgerError, match="append-only"), ledger.transaction() as connection:
                connection.exec_driver_sql(verb)
        with ledger.transaction() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []

"""The same ledger on a real PostgreSQL server, which the tests start; CARBONSCHED_TEST_POSTGRES names another, empty one."""

import os
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from support.intervals import intervals
from support.postgres import missing, postgres
from support.story import T0, interval, submitted, tell

from carbonsched.errors import LedgerError
from carbonsched.ledger import Ledger
from carbonsched.ledger.database_file import parsed_url
from carbonsched.ledger.store import upgrade
from carbonsched.ledger.tables import METADATA, SCHEMA

GIVEN = os.environ.get("CARBONSCHED_TEST_POSTGRES", "")
pytestmark = pytest.mark.skipif(not GIVEN and missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if GIVEN:
        yield GIVEN
        return
    with postgres() as url:
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """Of an empty database."""
    yield server
    engine = create_engine(parsed_url(server))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
        connection.exec_driver_sql("DROP FUNCTION IF EXISTS intervals_refuse, journal_refuse CASCADE")
    engine.dispose()


def test_the_story_is_told_alike(url: str) -> None:
    with Ledger.open("sqlite://") as small:
        tell(small, submitted())
        here = (small.totals("scitldr-1"), small.verify().conservation, small.marks(), intervals(small))
    with Ledger.open(url) as ledger:
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


@pytest.mark.parametrize("before", ["0001", "0002"])
def test_a_ledger_of_an_older_schema_is_migrated(url: str, before: str) -> None:
    engine = create_engine(parsed_url(url))
    with engine.begin() as connection:
        upgrade(connection, to=before)
    engine.dispose()
    with Ledger.open(url) as ledger:
        assert ledger.schema_version == SCHEMA
        ledger.append([interval(T0, 10, 500)])
        assert ledger.verify().ok
        with ledger.transaction() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []

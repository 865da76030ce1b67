"""The same ledger on a real PostgreSQL server, which the tests start; CARBONSCHED_TEST_POSTGRES names another, empty one."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine
from support.intervals import intervals
from support.job_history import T0, interval, submitted, write_history
from support.postgres import missing, postgres

from carbonsched.errors import InputError, LedgerError
from carbonsched.ledger import Ledger
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.database_file import parsed_url
from carbonsched.ledger.rollup import Retention, RollUp
from carbonsched.ledger.store import upgrade
from carbonsched.ledger.tables import METADATA, SCHEMA
from carbonsched.report import build

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
        for schema in ("public", '"box-gpu-1"', '"box-gpu-2"'):
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
        connection.exec_driver_sql(
            "DROP FUNCTION IF EXISTS intervals_refuse, journal_refuse, rollups_refuse, intervals_keep CASCADE"
        )
    engine.dispose()


def test_totals_of_hours_serve_reports_there_too(url: str) -> None:
    with Ledger.open(url) as ledger:
        end = write_history(ledger, submitted())
        plain = build(ledger, "scitldr-1", now=end), build(ledger, now=end)
        assert ledger.total_hours(end + timedelta(hours=2)) > 10
        for job, before in (("scitldr-1", plain[0]), (None, plain[1])):
            found = build(ledger, job, now=end)
            assert found.totals.energy_j == before.totals.energy_j
            assert found.totals.spent_g == pytest.approx(before.totals.spent_g, rel=1e-9)
            assert (found.gaps, found.completeness) == (before.gaps, before.completeness)
        assert ledger.verify().ok
        ledger.append([interval(end - timedelta(hours=3), 1, 7, board="other")])
        assert ledger.total_hours(end + timedelta(hours=2)) == 1
        with ledger.transaction() as connection:
            connection.exec_driver_sql("UPDATE hours SET energy_mj = energy_mj + 1")
        assert "the totals of the hour" in str(ledger.verify().problem)


def test_the_story_is_told_alike(url: str, tmp_path: Path) -> None:
    with Ledger.open("sqlite://") as small:
        write_history(small, submitted())
        here = (small.totals("scitldr-1"), small.verify().conservation, small.marks(), intervals(small))
    with Ledger.open(url) as ledger:
        write_history(ledger, submitted())
        assert ledger.verify().ok
        assert (ledger.totals("scitldr-1").energy_mj, ledger.verify().conservation) == (
            here[0].energy_mj,
            here[1],
        )
        assert (ledger.marks(), intervals(ledger)) == here[2:]
        pieces: list[dict[str, Any]] = []
        ledger.each_piece(pieces.append, "scitldr-1", piece_us=300_000_000)
        assert all(type(piece["energy_mj"]) is int for piece in pieces if piece["energy_mj"] is not None)
        assert sum(piece["energy_mj"] or 0 for piece in pieces) == here[0].energy_mj
        for days in (9, 40):
            rolled = RollUp(ledger, Retention(), Archive(tmp_path)).work(T0 + timedelta(days=days))
            result = ledger.verify(archive=Archive(tmp_path))
            assert (result.ok, result.problem, rolled.rows > 0) == (True, None, True)
            assert ledger.totals("scitldr-1").energy_mj == here[0].energy_mj
        for verb in (
            "UPDATE intervals SET grams = 0",
            "DELETE FROM intervals",
            "DELETE FROM rollups",
            "DELETE FROM journal",
            "TRUNCATE intervals",
        ):
            with pytest.raises(LedgerError, match="append-only"), ledger.transaction() as connection:
                connection.exec_driver_sql(verb)
        with ledger.transaction() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


@pytest.mark.parametrize("before", ["0001", "0004"])
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


def test_each_box_has_its_own_jobs_and_chain(url: str) -> None:
    boxes = {name: f"{url}&box={name}" for name in ("gpu-1", "gpu-2")}
    with Ledger.open(boxes["gpu-1"]) as one, Ledger.open(boxes["gpu-2"]) as two, Ledger.open(url) as unnamed:
        write_history(one, submitted())
        two.append([interval(T0, 10, 500, board="host")])
        assert [job.id for job in one.jobs()] == ["scitldr-1"]
        assert two.jobs() == unnamed.jobs() == ()
        # both have a board that is called host
        assert two.marks()["host"].at != one.marks()["host"].at
        assert (one.verify().ok, two.verify().ok, unnamed.totals().rows) == (True, True, 0)
        for held, name in ((boxes["gpu-1"], "of box gpu-1"), (url, "a box without a name")):
            with pytest.raises(LedgerError, match=f"another daemon writes the ledger.*{name}.*ledger.box"):
                Ledger.open(held)
        with Ledger.open(boxes["gpu-1"], read_only=True) as beside:
            assert beside.verify().ok
        # a writer that was cut off wins its place again, unless another one was faster
        _cut_off(url)
        with pytest.raises(LedgerError, match="terminat"):
            two.append([interval(T0 + timedelta(seconds=10), 10, 500, board="host")])
        two.append([interval(T0 + timedelta(seconds=10), 10, 500, board="host")])
        with Ledger.open(boxes["gpu-1"]):
            for _ in range(2):
                with pytest.raises(LedgerError, match=r"terminat|another daemon"):
                    one.append([interval(T0 + timedelta(days=1), 10, 500)])
    with Ledger.open(boxes["gpu-2"]) as again:
        assert again.totals().rows == 2


def test_a_box_is_named_plainly() -> None:
    with pytest.raises(InputError, match="no name of a box"):
        Ledger.open('postgresql:///carbon?box=x"; DROP TABLE jobs')


def _cut_off(url: str) -> None:
    engine = create_engine(parsed_url(url))
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = current_user"
        )
    engine.dispose()

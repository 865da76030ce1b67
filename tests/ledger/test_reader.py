"""What is asked of thousands of jobs is answered from indexes, also in a ledger that an older version began."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event, insert
from sqlalchemy.engine import Engine
from support.job_history import T0, submitted

from carbonsched.ledger import Ledger
from carbonsched.ledger.store import upgrade
from carbonsched.ledger.tables import JOBS, METADATA
from carbonsched.model.job import SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.jobs.actors import DAEMON


def with_settings(job_id: str, **settings: Any) -> SubmittedJob:
    """A submitted job with these queue or carbon settings."""
    job = submitted(job_id)
    spec = job.spec
    parts = {
        name: getattr(spec, name).model_copy(update=values) for name, values in settings.items() if values
    }
    return job.model_copy(update={"spec": spec.model_copy(update=parts)})


def plans(ledger: Ledger, ask: Callable[[], object]) -> list[str]:
    """SQLite's plan of every query that the call makes of the jobs."""
    found: list[str] = []

    def explain(_c: Any, cursor: Any, statement: str, parameters: Any, _x: Any, _m: bool) -> None:
        if "FROM jobs" in statement:
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found.extend(row[-1] for row in cursor.fetchall())

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        ask()
    finally:
        event.remove(Engine, "before_cursor_execute", explain)
    return found


ASKED: dict[str, Callable[[Ledger], object]] = {
    "ps": lambda ledger: ledger.listed(20),
    "ps --all": lambda ledger: ledger.listed(None),
    "a page of ps": lambda ledger: ledger.records(["scitldr-1", "scitldr-2"]),
    "a dedupe key": lambda ledger: ledger.with_key("k"),
    "pools at the start": lambda ledger: ledger.of_pools(),
    "jobs that ran": lambda ledger: ledger.newest(30),
    "latest": lambda ledger: ledger.latest_of(None),
    "an id's beginning": lambda ledger: ledger.ids_like("sci"),
    "who had a process": lambda ledger: ledger.started_ids(),
    "who may be pruned": lambda ledger: ledger.over_before(T0),
}


@pytest.mark.parametrize("asked", ASKED)
def test_no_question_reads_every_specification(tmp_path: Path, asked: str) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.add_job(submitted("scitldr-1"))
        found = plans(ledger, lambda: ASKED[asked](ledger))
    assert found
    read = [line for line in found if line.startswith(("SCAN jobs", "SEARCH jobs"))]
    assert read
    assert all("INDEX" in line for line in read), found


@pytest.mark.parametrize("asked", ["latest", "jobs that ran", "a dedupe key"])
def test_the_newest_are_found_without_sorting_all(tmp_path: Path, asked: str) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.add_job(submitted("scitldr-1"))
        found = plans(ledger, lambda: ASKED[asked](ledger))
    assert not any("USE TEMP B-TREE FOR ORDER BY" in line for line in found), found


def test_a_key_is_found_word_for_word(tmp_path: Path) -> None:
    keys = ('nightly "a"', "nightly_%", "schlüssel", "nightly")
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        ledger.add_job(submitted("scitldr-0"))
        for n, key in enumerate(keys, 1):
            ledger.add_job(with_settings(f"scitldr-{n}", queue={"dedupe_key": key}))
        ledger.add_job(
            with_settings("scitldr-label").model_copy(
                update={"spec": submitted().spec.model_copy(update={"labels": {"dedupe_key": "nightly"}})}
            )
        )
        for n, key in enumerate(keys, 1):
            assert [row.id for row in ledger.with_key(key)] == [f"scitldr-{n}"], key
        assert ledger.with_key("night") == ()


def test_only_ended_jobs_count_for_a_pool(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path}/ledger.db") as ledger:
        for n, pool in enumerate(("night", "night", None)):
            ledger.add_job(
                with_settings(f"scitldr-{n}", carbon={"pool": pool, "budget_g": None if pool else 1.0})
            )
        for job_id in ("scitldr-1", "scitldr-2"):
            ledger.set_state(job_id, JobState.CANCELLED, "by hand", DAEMON, T0)
        assert [row.id for row in ledger.of_pools()] == ["scitldr-1"]


@pytest.mark.parametrize("before", ["0001", "0004", "0005", "0006"])
def test_an_older_ledger_gets_the_indexes_with_its_jobs(tmp_path: Path, before: str) -> None:
    url, job = f"sqlite:///{tmp_path}/ledger.db", with_settings("scitldr-1", queue={"dedupe_key": "nightly"})
    with Ledger.open(url) as ledger:  # for a row as today's code writes it
        ledger.add_job(job)
        with ledger.transaction() as connection:
            row = dict(connection.execute(JOBS.select()).mappings().one())
    (tmp_path / "ledger.db").unlink()
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection, to=before)
        connection.execute(insert(JOBS), row)
        assert compare_metadata(MigrationContext.configure(connection), METADATA) != []
    engine.dispose()
    with Ledger.open(url) as ledger:
        with ledger.transaction() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
        assert [found.id for found in ledger.with_key("nightly")] == ["scitldr-1"]
        assert ledger.listed(20)[0] == ("scitldr-1",)

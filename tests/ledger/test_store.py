"""Opening, migrating, locking, dying and running out of disk."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from support import crash_points
from support.job_history import T0, harm, interval, submitted
from support.small_disk import small_disk

import carbonsched.ledger
from carbonsched.errors import InputError, LedgerError
from carbonsched.ledger import Ledger, store
from carbonsched.ledger.tables import METADATA, SCHEMA


def url(path: Path) -> str:
    return f"sqlite:///{path / 'ledger.db'}"


def test_a_new_ledger_has_the_schema_the_code_expects(tmp_path: Path) -> None:
    with Ledger.open(url(tmp_path)) as ledger:
        assert ledger.schema_version == SCHEMA
        with ledger.transaction() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_schema_is_the_head_of_the_migrations() -> None:
    folder = Path(carbonsched.ledger.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == SCHEMA


def test_what_was_written_is_there_again_with_full_durability(tmp_path: Path) -> None:
    with Ledger.open(url(tmp_path / "new" / "folder")) as ledger:
        ledger.append([interval(T0, 10, 500)])
        with ledger.transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    with Ledger.open(url(tmp_path / "new" / "folder")) as again:
        assert again.totals().energy_mj == 500


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nonsense", "is not a database URL"),
        ("sqlite:///{tmp}", "is a folder"),
        ("sqlite:////proc/nowhere/ledger.db", "cannot be made"),
        ("sqlite:////dev/null", "is no plain file"),
        ("oracle+nodriver://x/y", "no driver"),
    ],
)
def test_a_wrong_place_is_one_line_that_names_the_field(tmp_path: Path, given: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Ledger.open(given.format(tmp=tmp_path))
    assert str(caught.value).startswith("ledger.url: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql:/alice:s3cret@db/led",
        "alice:s3cret@db",
        "postgresql://alice:s3cret@db:port/led",
        "postgresql:/db/led?password=s3cret",
        "oracle+nodriver://db/led?user=alice&password=s3cret",
        "oracle+nodriver://alice:s3cret@db/led",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(given: str) -> None:
    with pytest.raises(InputError) as caught:
        Ledger.open(given)
    assert str(caught.value).startswith("ledger.url: ")
    error: BaseException | None = caught.value
    while error is not None:  # --debug shows the causes, too
        assert "s3cret" not in str(error)
        error = error.__cause__


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"these are not the pages you are looking for" * 200)
    with pytest.raises(LedgerError, match="restore it from a backup"):
        Ledger.open(url(tmp_path))


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Ledger.open(url(tmp_path)).close()
    raw = sqlite3.connect(tmp_path / "ledger.db")
    raw.execute("UPDATE alembic_version SET version_num = '0999'")
    raw.commit()
    raw.close()
    with pytest.raises(LedgerError, match=r"schema 0999.*upgrade carbonsched"):
        Ledger.open(url(tmp_path))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("", "names schema ''"),
        ("0.5", "names schema '0.5'"),
        ("0003x", "names schema"),
        ("0003", "of the schema that it names"),
    ],
)
@pytest.mark.parametrize("read_only", [True, False])
def test_a_schema_number_that_somebody_wrote_is_told_by_the_files_own_name(
    tmp_path: Path, named: str, said: str, read_only: bool
) -> None:
    Ledger.open(url(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = ?", (named,))
    with pytest.raises(LedgerError) as refused:
        Ledger.open(url(tmp_path), read_only=read_only)
    assert str(tmp_path / "ledger.db") in str(refused.value)
    if read_only or named != "0003":
        assert said in str(refused.value)


def test_one_process_writes_and_others_may_read(tmp_path: Path) -> None:
    with Ledger.open(url(tmp_path)) as ledger:
        ledger.append([interval(T0, 10, 500)])
        with pytest.raises(LedgerError, match=f"in use by process {os.getpid()}"):
            Ledger.open(url(tmp_path))
        with Ledger.open(url(tmp_path), read_only=True) as reader:
            assert reader.totals().energy_mj == 500
            with pytest.raises(LedgerError, match="readonly"):
                reader.append([interval(T0 + timedelta(seconds=10), 10, 1)])
    with pytest.raises(InputError, match="there is no ledger"):
        Ledger.open(url(tmp_path / "elsewhere"), read_only=True)


@pytest.mark.parametrize(
    "verb", ["UPDATE intervals SET grams = 0", "DELETE FROM intervals", "DELETE FROM journal"]
)
def test_rows_cannot_be_changed_or_removed(tmp_path: Path, verb: str) -> None:
    with Ledger.open(url(tmp_path)) as ledger:
        ledger.add_job(submitted())
        ledger.append([interval(T0, 10, 500)])
        with pytest.raises(LedgerError, match="append-only"), ledger.transaction() as connection:
            connection.exec_driver_sql(verb)
        assert ledger.totals().rows == 1


def test_a_full_disk_is_an_error_and_loses_nothing_committed(tmp_path: Path) -> None:
    def row(n: int) -> object:
        return interval(T0 + timedelta(seconds=10 * n), 10, n, job_id="j")

    with Ledger.open(url(tmp_path)) as ledger:
        ledger.append([interval(T0, 10, 7, job_id="j")])
        with ledger.transaction() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
        kept = 1
        with pytest.raises(LedgerError, match="full; free space"):  # noqa: PT012
            for n in range(1, 2000):
                ledger.append([row(n)])  # type: ignore[list-item]
                kept += 1
        assert 1 < kept < 2000
        assert (ledger.totals("j").rows, ledger.verify().ok) == (kept, True)
        with ledger.transaction() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
        ledger.append([row(kept)])  # type: ignore[list-item]
        assert ledger.verify().rows == kept + 1, "it goes on once there is space"


def test_a_process_killed_in_mid_transaction_leaves_a_consistent_chain(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from datetime import timedelta
        from carbonsched.ledger import Ledger
        from support.job_history import T0, interval, submitted
        ledger = Ledger.open(sys.argv[1])
        ledger.add_job(submitted("j"))
        for n in range(10_000):
            with ledger.transaction():
                at = T0 + timedelta(seconds=2 * n)
                ledger.append([interval(at, 1, 1, job_id="j", counter=2 * n)])
                ledger.set_offset("j", n + 1)
                ledger.append([interval(at + timedelta(seconds=1), 1, 1, job_id="j", counter=2 * n + 1)])
                if n == 25:
                    print("inside", flush=True)
                    sys.stdin.read()
        """
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", script, url(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"inside\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    process.stdin.close()
    with Ledger.open(url(tmp_path)) as ledger:
        assert (ledger.totals("j").rows, ledger.offset("j")) == (50, 25)
        assert ledger.verify().ok
        (balance,) = ledger.verify().conservation
        assert (balance.charged_mj, balance.holes_mj) == (50, 0)
        ledger.append([interval(T0 + timedelta(seconds=50), 1, 1, job_id="j", counter=50)])
        assert ledger.verify().rows == 51


def test_opening_an_up_to_date_ledger_needs_no_migration_machinery(tmp_path: Path) -> None:
    Ledger.open(url(tmp_path)).close()
    script = "import sys; from carbonsched.ledger import Ledger; Ledger.open(sys.argv[1]); print('alembic' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", script, url(tmp_path)], capture_output=True, check=True, text=True
    )
    assert answer.stdout == "False\n"


def test_a_disk_that_is_full_at_the_start_is_started_on(tmp_path: Path) -> None:
    """On a file system that is really full SQLite cannot make its log; room is kept for that."""
    with small_disk(tmp_path / "disk", 2) as disk:
        if disk is None:
            pytest.skip("a file system of two megabytes cannot be mounted here")
        Ledger.open(url(disk.path)).close()
        disk.fill()
        with Ledger.open(url(disk.path)) as ledger:
            assert ledger.verify().ok
            with suppress(LedgerError):
                for _ in range(1000):
                    ledger.note(None, "note", {"text": "x" * 4000}, "test", datetime.now(UTC))
            disk.free()
            ledger.note(None, "note", {"text": "healed"}, "test", datetime.now(UTC))
        with Ledger.open(url(disk.path)) as ledger:
            assert ledger.history(None)[-1]["text"] == "healed"
        assert (disk.path / "ledger.db.reserve").stat().st_blocks > 0, "kept anew"


def test_an_empty_database_beside_its_log_is_refused_as_the_log_would_be_thrown_away(tmp_path: Path) -> None:
    file, wal = tmp_path / "ledger.db", tmp_path / "ledger.db-wal"
    with Ledger.open(url(tmp_path)) as ledger:
        ledger.append([interval(T0, 10, 500)])
        kept = wal.read_bytes()
        assert kept
    (tmp_path / "real").mkdir()
    for name, make in {
        "gone": lambda: None,
        "empty": file.touch,
        "a link": lambda: file.symlink_to("real/db"),
    }.items():
        file.unlink(missing_ok=True)
        make()
        wal = tmp_path / "real" / "db-wal" if name == "a link" else wal
        wal.write_bytes(kept)
        for read_only in (False, True):
            with pytest.raises(
                InputError, match=r"ledger\.url: .*-wal is there; put the ledger back|there is no ledger"
            ):
                Ledger.open(url(tmp_path), read_only=read_only)
        assert wal.read_bytes() == kept, name


def test_a_damaged_page_is_told_by_the_quick_check_and_one_that_takes_too_long_is_left_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Ledger.open(url(tmp_path)) as ledger:
        ledger.add_job(submitted())
        ledger.quick_check(10)
    Ledger.open("sqlite://").quick_check(10)
    harm(tmp_path / "ledger.db", "journal")
    with Ledger.open(url(tmp_path)) as ledger:
        with pytest.raises(
            LedgerError,
            match=r"ledger\.db: the database file is damaged: .*Page \d+: .*restore it from a backup",
        ):
            ledger.quick_check(10)
        # a check that goes on for ever: what is asked in its place counts without end
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        monkeypatch.setattr(store, "file_problem", lambda c: c.exec_driver_sql(endless).scalar())
        ledger.quick_check(0.1)
    assert "not checked to its end in 0.1 s: audit verify does it whole" in caplog.text


@pytest.mark.parametrize("size", [2, 100, 512, 4096, 40_960])
def test_a_file_of_zeros_is_no_ledger(tmp_path: Path, size: int) -> None:
    (tmp_path / "ledger.db").write_bytes(bytes(size))
    with pytest.raises(LedgerError, match=r"not a database; restore it from a backup"):
        Ledger.open(url(tmp_path))
    assert (tmp_path / "ledger.db").read_bytes() == bytes(size)


@pytest.mark.parametrize("table", ["notes", "alembic_version"])
def test_another_database_is_not_made_a_ledger(tmp_path: Path, table: str) -> None:
    raw = sqlite3.connect(tmp_path / "ledger.db")
    raw.execute(f"CREATE TABLE {table} (version_num TEXT)")
    raw.execute(f"INSERT INTO {table} VALUES ('0000')")  # noqa: S608
    raw.commit()
    raw.close()
    with pytest.raises(
        InputError, match=rf"another database, with tables {table}; give the ledger a file of its own"
    ):
        Ledger.open(url(tmp_path))


def test_a_link_is_followed_so_that_one_ledger_has_one_lock(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "ledger.db").symlink_to(tmp_path / "disk" / "ledger.db")
    with Ledger.open(url(tmp_path)), pytest.raises(LedgerError, match="in use by process"):
        Ledger.open(url(tmp_path / "disk"))
    with Ledger.open(f"sqlite:///file:{tmp_path}/disk/ledger.db?uri=true") as ledger:
        ledger.append([interval(T0, 10, 500)])
    with Ledger.open(url(tmp_path)) as ledger:
        assert ledger.totals().rows == 1
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "ledger.db"}


def test_a_log_that_is_removed_under_it_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Ledger.open(url(tmp_path)) as ledger:
        ledger.append([interval(T0, 10, 500)])
        (tmp_path / "ledger.db-wal").unlink()
        ledger.append([interval(T0 + timedelta(seconds=10), 10, 7)])
        assert "its log was removed while it is in use" in caplog.text
        for name in ("ledger.db", "ledger.db-wal"):  # as kill -9 leaves it
            shutil.copy(tmp_path / name, (tmp_path / "copy").mkdir(exist_ok=True) or tmp_path / "copy" / name)
        assert ledger.totals().energy_mj == 507
    with Ledger.open(url(tmp_path / "copy")) as copy:
        assert (copy.totals().energy_mj, copy.verify().ok) == (507, True)


def test_a_database_that_is_moved_away_under_it_takes_nothing_until_it_is_back(tmp_path: Path) -> None:
    file, away = tmp_path / "ledger.db", tmp_path / "away.db"
    with Ledger.open(url(tmp_path)) as ledger:
        ledger.append([interval(T0, 10, 500)])
        file.rename(away)
        for _ in range(2):
            with pytest.raises(LedgerError, match="was moved or replaced while it is in use"):
                ledger.append([interval(T0 + timedelta(seconds=10), 10, 7)])
        away.replace(file)
        ledger.append([interval(T0 + timedelta(seconds=10), 10, 7)])
        assert ledger.verify().rows == 2


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_killed_at_every_fsync_it_has_what_it_acknowledged(tmp_path: Path) -> None:
    """Before and after each: of rows, of a roll-up, of its archive. What the next process finds verifies, and goes on."""
    (tmp_path / "crash.c").write_text(crash_points.SOURCE)
    library = tmp_path / "crash.so"
    built = ["cc", "-shared", "-fPIC", "-o", str(library), str(tmp_path / "crash.c"), "-ldl"]
    subprocess.run(built, check=True)
    tests = Path(__file__).parents[1]
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": f"{tests.parent}:{tests}"}
    command = [sys.executable, crash_points.__file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 20

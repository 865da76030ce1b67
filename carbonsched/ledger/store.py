"""Opens the database of the ledger: one writer, many readers, migrated on opening, its errors raised as LedgerError.

SQLite runs in WAL mode with synchronous=FULL: a committed row survives a power cut, and readers never wait for the writer. After
`sync_later` a commit survives only once `sync` has returned. A lock file beside the database keeps a second daemon out. On PostgreSQL an
advisory lock does that, and each box has a schema of its own with its own jobs and chains.
"""

import logging
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    QueuePool,
    StaticPool,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

from carbonsched.errors import InputError, LedgerBusyError, LedgerError
from carbonsched.ledger.database_file import FIELD, DatabaseFile, box_of, parsed_url, without_mode
from carbonsched.ledger.log_sync import LogSync
from carbonsched.ledger.tables import JOURNAL, SCHEMA

log = logging.getLogger(__name__)

_READERS = 4
_VERSION = re.compile(r"(?!0000)\d{4}")
# an arbitrary constant that names carbonsched's ledger among a server's advisory locks
_ADVISORY = 0x6361_7262


class _OlderError(Exception):
    """A read-only file has an older schema."""

    def __init__(self, file: DatabaseFile) -> None:
        super().__init__(str(file.path))
        self.file = file


class Store:
    """Connections and transactions; `Ledger` adds the writes. Threads may share one.

    Example:
        >>> with Store.open("sqlite://") as store:
        ...     store.schema_version
        '0007'
    """

    def __init__(
        self, writer: Engine, reader: Engine | None, where: str, file: DatabaseFile | None = None
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._where = where
        self._file = file
        self._lock = threading.RLock()
        self._current: Connection | None = None
        self._holder: int | None = None
        self._doomed = False
        self._folder: TemporaryDirectory[str] | None = None
        self._log_sync: LogSync | None = None

    @classmethod
    def open(cls, url: str, *, read_only: bool = False) -> Self:
        """Open, create or migrate the ledger at a SQLAlchemy URL.

        `read_only` opens it beside a running daemon without lock, migration or write; of an older file a migrated copy is read. Raises
        InputError if the URL is wrong or its place is not writable, LedgerError if another process holds the ledger or its schema is newer.
        """
        parsed, box = box_of(without_mode(parsed_url(url), read_only=read_only))
        # a query may contain a password too
        where = parsed.set(query={}).render_as_string(hide_password=True) + (f" (box {box})" if box else "")
        file = DatabaseFile.of(parsed)
        if file is not None:
            file.check(create=not read_only)
            if not read_only:
                file.lock()
        try:
            writer = _engine(parsed, pool="one", query_only=read_only, box=box)
            memory = parsed.get_backend_name() == "sqlite" and file is None
            reader = None if memory else _engine(parsed, pool="many", query_only=True, box=box)
            store = cls(writer, reader, where, file)
        except (NoSuchModuleError, ImportError) as e:
            if file is not None:
                file.unlock()
            raise InputError(FIELD, f"no driver for {where}: {e}", "install it or use sqlite:///FILE") from e
        try:
            store._settle(read_only=read_only)
        except _OlderError as e:
            store.close()
            return cls._of_copy(e.file, where)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def _of_copy(cls, file: DatabaseFile, where: str) -> Self:
        """A migrated copy of a file with an older schema: an auditor does not change what is audited."""
        folder = TemporaryDirectory(prefix="carbonsched-ledger-")
        copy = Path(folder.name) / file.path.name
        try:
            file.copy_to(copy)
            cls.open(f"sqlite:///{copy}").close()
            store = cls.open(f"sqlite:///{copy}", read_only=True)
        except LedgerError as e:
            folder.cleanup()
            said = str(e).replace(f"sqlite:///{copy}", where)
            raise LedgerError(f"{said}; is it of the schema that it names?") from e
        except BaseException:
            folder.cleanup()
            raise
        store._where, store._folder = where, folder
        return store

    def _settle(self, *, read_only: bool) -> None:
        file = self._file
        if file is None and not read_only:
            with self.transaction():
                pass  # the writer's session: on a server it holds the lock
        try:
            self._migrate(read_only=read_only)
        except LedgerError:
            # on a full disk SQLite cannot even open its log, so the reserved space is released
            if read_only or file is None or not file.give_room():
                raise
            self._migrate(read_only=read_only)
        else:
            if file is not None and not read_only:
                file.keep_room()
        if file is not None and not read_only:
            file.note_opened()

    def close(self) -> None:
        self._disconnect()
        if self._file is not None:
            self._file.unlock()
        if self._folder is not None:
            self._folder.cleanup()

    def _disconnect(self) -> None:
        # readers first: the last connection to a WAL database checkpoints it, and that must be the writer's
        if self._reader is not None:
            self._reader.dispose()
        with self._lock:
            self._writer.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def where(self) -> str:
        """The URL without a password."""
        return self._where

    @property
    def lasting(self) -> bool:
        """Whether it outlives the daemon; False: it is in memory."""
        return self._reader is not None

    def keep_room(self) -> None:
        """Reserve space for a start on a full disk, if the reserve was released, deleted or never made."""
        if self._file is not None:
            self._file.keep_room()

    def sync_later(self) -> None:
        """From now on commits do not wait for the disk; `sync` does. No effect on a server's database. Raises LedgerError."""
        if self._file is None or self._log_sync is not None:
            return
        event.listen(self._writer, "connect", _sync_later)
        with self._lock:
            self._writer.dispose()  # applies to the next connection
        self._log_sync = LogSync(self._file.path)

    def sync(self) -> bool:
        """Wait until this thread's commits survive a power cut; returns whether there was something to wait for. Raises LedgerError; the
        next call tries again."""
        try:
            return self._log_sync is not None and self._log_sync.sync()
        except OSError as e:
            raise LedgerError(
                f"{self._where}: {e.strerror or e}; a power cut may lose what was written last"
            ) from e

    @property
    def schema_version(self) -> str:
        with self._reading() as connection:
            return _schema(connection) or "none"

    def quick_check(self, limit_s: float) -> None:
        """Let SQLite check its file, some seconds per gigabyte; after `limit_s` the check stops and says so. Raises LedgerError for a
        damaged file."""
        with self._reading() as connection:
            if connection.dialect.name != "sqlite":
                return
            raw: Any = connection.connection.dbapi_connection
            late = threading.Event()

            def interrupt() -> None:
                late.set()
                raw.interrupt()

            timer = threading.Timer(limit_s, interrupt)
            timer.start()
            try:
                problem = file_problem(connection)
            except SQLAlchemyError:
                if not late.is_set():
                    raise
                problem = None
            finally:
                timer.cancel()
                timer.join()
        if problem:
            raise LedgerError(f"{self._where}: {problem}")
        if late.is_set():
            log.warning(
                "%s: not checked to its end in %g s: audit verify does it whole", self._where, limit_s
            )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Group writes: all or none. A nested transaction joins the outer one.

        Raises LedgerError if the database refuses. A refusal in a nested block dooms the outer one, even if the caller swallows it.
        """
        with self._lock:
            if self._current is not None:
                try:
                    yield self._current
                except SQLAlchemyError as e:
                    self._doomed = True
                    raise self._refused(e) from e
                return
            self._check_file()
            try:
                with self._writer.begin() as connection:
                    self._current, self._holder = connection, threading.get_ident()
                    yield connection
                    if self._doomed:
                        raise LedgerError(f"{self._where}: a write in this transaction failed, none is kept")
                if self._log_sync is not None:
                    self._log_sync.note()
            except SQLAlchemyError as e:
                raise self._refused(e) from e
            finally:
                self._current, self._holder, self._doomed = None, None, False

    def _check_file(self) -> None:
        """Raise LedgerError if further writes would be lost."""
        if self._file is None or self._file.is_log_same():
            return
        log.warning(
            "%s: its log was removed while it is in use; it is folded back, and begun anew", self._where
        )
        self._disconnect()
        self._file.note_opened()

    @property
    def _mine(self) -> bool:
        """Whether this thread is inside its own transaction."""
        return self._current is not None and self._holder == threading.get_ident()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A snapshot, or this thread's own transaction if it is in one."""
        try:
            if self._mine and self._current is not None:
                yield self._current
            elif self._reader is None:
                with self._lock, self._writer.begin() as connection:
                    yield connection
            else:
                with self._reader.begin() as connection:
                    yield connection
        except SQLAlchemyError as e:
            raise self._refused(e) from e

    def _refused(self, error: SQLAlchemyError) -> LedgerError:
        said = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        low = said.lower()
        hint = ""
        if "full" in low or "no space" in low:
            hint = "; free space on its file system, what was committed is safe"
        elif "readonly" in low or "read-only" in low or "unable to open" in low:
            hint = "; make the file and its folder writable for the daemon's user"
        elif "not a database" in low or "malformed" in low:
            hint = "; restore it from a backup or point ledger.url elsewhere"
        elif "locked" in low:
            return LedgerBusyError(f"{self._where}: {said}; another process writes to it")
        return LedgerError(f"{self._where}: {said}{hint}")

    def _migrate(self, *, read_only: bool) -> None:
        with self._reading() as connection:
            have = _schema(connection)
            if others := _others(connection, have):
                raise InputError(
                    FIELD,
                    f"{self._where} is another database, with tables {', '.join(others[:3])}",
                    "give the ledger a file of its own, or put it back from its newest backup",
                )
        if have == SCHEMA:
            return
        if have is not None and not _VERSION.fullmatch(have):
            raise LedgerError(
                f"{self._where} names schema {have[:20]!r}, which no carbonsched has written; restore it from a backup"
            )
        if have is not None and have > SCHEMA:
            raise LedgerError(
                f"{self._where} has schema {have}, this carbonsched knows up to {SCHEMA}; upgrade carbonsched"
            )
        if read_only and have is not None and self._file is not None:
            raise _OlderError(self._file)
        if read_only:
            raise LedgerError(
                f"{self._where} has schema {have or 'none'}, not {SCHEMA}; start the daemon once to migrate it"
            )
        with self.transaction() as connection:
            upgrade(connection)


def upgrade(connection: Connection, to: str = "head") -> None:
    """Run the migrations on an open transaction."""
    # slow to import, and only a new or an old ledger needs it
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _others(connection: Connection, schema: str | None) -> list[str]:
    """Tables in the database that are not carbonsched's; on a server a ledger may share the database with others."""
    if schema is None and connection.dialect.name != "sqlite":
        return []
    names = inspect(connection).get_table_names()
    return [] if JOURNAL.name in names else sorted(names)


def _schema(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def file_problem(connection: Connection) -> str | None:
    """What SQLite finds wrong with the file; the hash chain is checked elsewhere. Raises SQLAlchemyError."""
    if connection.dialect.name != "sqlite":
        return None
    said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if said == "ok":
        return None
    return f"the database file is damaged: {' '.join(str(said).split())}; restore it from a backup"


def _engine(url: URL, *, pool: str, query_only: bool, box: str | None = None) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": 10}} if sqlite else {}
    if box is not None and not sqlite:
        options["connect_args"] = {"options": f'-csearch_path="{_schema_of(box)}"'}
    if pool == "one":
        options["poolclass"] = StaticPool
    else:
        options |= {"poolclass": QueuePool, "pool_size": _READERS, "max_overflow": 2 * _READERS}
    engine = create_engine(url, **options)
    if sqlite:
        _tune_sqlite(engine, query_only=query_only, writes=pool == "one")
    elif pool == "one" and not query_only:

        @event.listens_for(engine, "connect")
        def _alone(dbapi: Any, _record: object) -> None:
            """As long as this session lives: one that is cut off has to win it again."""
            with dbapi.cursor() as cursor:
                if box is not None:
                    cursor.execute(f'CREATE SCHEMA IF NOT EXISTS "{_schema_of(box)}"')
                key = zlib.crc32((box or "").encode()) - 2**31
                cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", (_ADVISORY, key))
                [won] = cursor.fetchone()
            dbapi.commit()
            if not won:
                whose = f"box {box}" if box else "a box without a name"
                raise LedgerError(
                    f"{url.set(query={}).render_as_string(hide_password=True)}: another daemon writes the ledger of {whose}; stop it, or "
                    "give each box a name of its own: ledger.box"
                )

    return engine


def _sync_later(dbapi: Any, _record: object) -> None:
    cursor = dbapi.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA wal_autocheckpoint=0")
    cursor.close()


def _schema_of(box: str) -> str:
    """The schema of a box on a server."""
    return f"box-{box}"


def _tune_sqlite(engine: Engine, *, query_only: bool, writes: bool) -> None:
    @event.listens_for(engine, "connect")
    def _connected(dbapi: Any, _record: object) -> None:
        # the driver begins transactions late, and never for reads; `_began` begins them all
        dbapi.isolation_level = None
        cursor = dbapi.cursor()
        if query_only:
            cursor.execute("PRAGMA query_only=ON")
        else:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _began(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes and not query_only else "BEGIN")

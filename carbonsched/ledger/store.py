"""Opens the database under the ledger: one writer, many readers, migrated on opening, its errors raised as LedgerError.

SQLite runs in WAL mode with synchronous=FULL: a committed row survives a power cut, and readers never wait for the
writer. A lock file beside the database keeps a second daemon out. PostgreSQL takes an advisory lock per transaction.
"""

import fcntl
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
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
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from carbonsched.errors import InputError, LedgerError
from carbonsched.ledger.tables import SCHEMA

log = logging.getLogger(__name__)

_FIELD = "ledger.url"
_READERS = 4
_RESERVE_BYTES = 1024 * 1024
"""SQLite's log and its index take some 40 kB to begin with; the rest is for the rows of a day or so."""
# any constant: it names carbonsched's ledger among a server's advisory locks
_ADVISORY = 0x6361_7262


class Store:
    """Connections and transactions; `Ledger` adds what is written in them. Threads may share one.

    Example:
        >>> with Store.open("sqlite://") as store:
        ...     store.schema_version
        '0001'
    """

    def __init__(self, writer: Engine, reader: Engine | None, where: str, lock_fd: int | None) -> None:
        self._writer = writer
        self._reader = reader
        self._where = where
        self._lock_fd = lock_fd
        self._lock = threading.RLock()
        self._current: Connection | None = None
        self._holder: int | None = None
        self._doomed = False

    @classmethod
    def open(cls, url: str, *, read_only: bool = False) -> Self:
        """Open, create or migrate the ledger at a SQLAlchemy URL.

        `read_only` opens beside a running daemon: no lock, no migration, no write. Raises InputError where the URL is
        wrong or its place not writable, LedgerError where another process holds it or the schema is newer.
        """
        parsed = _parsed(url)
        # a query may hold a password, too
        where = parsed.set(query={}).render_as_string(hide_password=True)
        path = _file(parsed)
        lock_fd: int | None = None
        if path is not None:
            _reachable(path, create=not read_only)
            lock_fd = None if read_only else _locked(path)
        try:
            writer = _engine(parsed, pool="one", query_only=read_only)
            memory = parsed.get_backend_name() == "sqlite" and path is None
            reader = None if memory else _engine(parsed, pool="many", query_only=True)
            store = cls(writer, reader, where, lock_fd)
        except (NoSuchModuleError, ImportError) as e:
            _unlock(lock_fd)
            raise InputError(_FIELD, f"no driver for {where}: {e}", "install it or use sqlite:///FILE") from e
        try:
            try:
                store._migrate(read_only=read_only)
            except LedgerError:
                # on a full disk SQLite cannot even open its log: the room that was kept for this is given to it
                if read_only or path is None or not _release(path):
                    raise
                store._migrate(read_only=read_only)
            else:
                if path is not None and not read_only:
                    _reserve(path)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        # readers first: the last connection to leave a WAL database folds the log back, and that is the writer's work
        if self._reader is not None:
            self._reader.dispose()
        with self._lock:
            self._writer.dispose()
        _unlock(self._lock_fd)
        self._lock_fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def schema_version(self) -> str:
        with self._reading() as connection:
            return _schema(connection) or "none"

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Group writes: all or none. Nests by joining the outer one. Raises LedgerError where the database refuses.

        A refusal inside a nested block dooms the outer one, even if the caller swallows it.
        """
        with self._lock:
            if self._current is not None:
                try:
                    yield self._current
                except SQLAlchemyError as e:
                    self._doomed = True
                    raise self._refused(e) from e
                return
            try:
                with self._writer.begin() as connection:
                    self._current, self._holder = connection, threading.get_ident()
                    yield connection
                    if self._doomed:
                        raise LedgerError(f"{self._where}: a write in this transaction failed, none is kept")
            except SQLAlchemyError as e:
                raise self._refused(e) from e
            finally:
                self._current, self._holder, self._doomed = None, None, False

    @property
    def _mine(self) -> bool:
        """Whether this thread is inside its own transaction."""
        return self._current is not None and self._holder == threading.get_ident()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A snapshot; inside this thread's own transaction, that transaction."""
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
            hint = "; another process writes to it"
        return LedgerError(f"{self._where}: {said}{hint}")

    def _migrate(self, *, read_only: bool) -> None:
        with self._reading() as connection:
            have = _schema(connection)
        if have == SCHEMA:
            return
        if have is not None and have > SCHEMA:
            raise LedgerError(
                f"{self._where} has schema {have}, this carbonsched knows up to {SCHEMA}; upgrade carbonsched"
            )
        if read_only:
            raise LedgerError(
                f"{self._where} has schema {have or 'none'}, not {SCHEMA}; start the daemon once to migrate it"
            )
        with self.transaction() as connection:
            upgrade(connection)


def upgrade(connection: Connection, to: str = "head") -> None:
    """Run the migrations on an open transaction."""
    # heavy, and only a new or an old ledger needs it
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _schema(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as e:
        # what is no URL cannot be told apart into password and rest
        shown = repr(url) if re.fullmatch(r"[\w./ -]*", url) else "this (not shown, it may hold a password)"
        raise InputError(_FIELD, f"{shown} is not a database URL", "write sqlite:////path/ledger.db") from e


def _file(url: URL) -> Path | None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _reachable(path: Path, *, create: bool) -> None:
    try:
        if create:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            raise InputError(_FIELD, f"there is no ledger at {path}", "start the daemon once to make it")
    except OSError as e:
        raise InputError(
            _FIELD, f"{path.parent} cannot be made: {e.strerror}", "give a writable place"
        ) from e
    if path.is_dir():
        raise InputError(_FIELD, f"{path} is a folder", "give a file, e.g. sqlite:////path/ledger.db")
    target = path if path.exists() else path.parent
    if create and not os.access(target, os.W_OK):
        raise InputError(_FIELD, f"{target} is not writable", "make it writable for the daemon's user")


def _locked(path: Path) -> int:
    lock = path.with_name(path.name + ".lock")
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as e:
        raise InputError(
            _FIELD, f"{lock} cannot be opened: {e.strerror}", "make its folder writable for the daemon's user"
        ) from e
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise LedgerError(
            f"{path} is in use by process {holder}; one daemon writes a ledger, stop that one first"
        ) from e
    with suppress(OSError):  # a full disk: the lock holds without the number, which is for people
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _reserve(path: Path) -> None:
    """Keep room beside the ledger for a start on a disk that is full by then."""
    reserve = path.with_name(f"{path.name}.reserve")
    try:
        with reserve.open("ab") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
    except OSError:
        _release(path)


def _release(path: Path) -> bool:
    """Give up the room that was kept; whether there was some."""
    reserve = path.with_name(f"{path.name}.reserve")
    try:
        reserve.unlink()
    except OSError:
        return False
    log.warning("%s: opened in the room that was kept for a full disk: free space there", path)
    return True


def _unlock(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)


def _engine(url: URL, *, pool: str, query_only: bool) -> Engine:
    sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"check_same_thread": False, "timeout": 10}} if sqlite else {}
    if pool == "one":
        options["poolclass"] = StaticPool
    else:
        options |= {"poolclass": QueuePool, "pool_size": _READERS, "max_overflow": 2 * _READERS}
    engine = create_engine(url, **options)
    if sqlite:
        _tune_sqlite(engine, query_only=query_only, writes=pool == "one")
    elif pool == "one" and not query_only:

        @event.listens_for(engine, "begin")
        def _alone(connection: Connection) -> None:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY})

    return engine


def _tune_sqlite(engine: Engine, *, query_only: bool, writes: bool) -> None:
    @event.listens_for(engine, "connect")
    def _connected(dbapi: Any, _record: object) -> None:
        # the driver begins transactions late and never for reads; `_began` begins them all
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

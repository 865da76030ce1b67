"""Looks after the files of a SQLite ledger: where they may lie, who holds them, room on a full disk, and what becomes of them.

ledger.db           the database
ledger.db-wal       its log: what was committed and is not folded back yet
ledger.db.lock      held by the one daemon that writes, its number inside
ledger.db.reserve   room for a start on a disk that is full by then
"""

import fcntl
import logging
import os
import re
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from carbonsched.errors import InputError, LedgerError

log = logging.getLogger(__name__)

FIELD = "ledger.url"
BOX = r"[a-z0-9][a-z0-9-]{0,39}"
"""Names that a box may have: on a server its ledger is a schema of that name."""
_RESERVE_BYTES = 1024 * 1024
"""SQLite's log and its index need some 60 kB at first; the rest is for the rows of about a day."""

_LEFT_BYTES = 64 * 1024
"""Free bytes that must remain beside the reserve."""

_Identity = tuple[int, int]
"""Device and inode."""


@dataclass(slots=True)
class DatabaseFile:
    """The files of one ledger.

    Example::

        file = DatabaseFile.of(url)  # None: in memory, or on a server
        file.check(create=True)
        file.lock()
    """

    path: Path
    """With all links resolved: SQLite writes its log where they lead."""
    _lock_fd: int | None = None
    _opened: _Identity | None = None
    _log: _Identity | None = None

    @classmethod
    def of(cls, url: URL) -> "DatabaseFile | None":
        """None if the ledger is in memory or on a server."""
        name = url.database or ""
        if url.query.get("uri") and name.startswith("file:"):
            name = "" if url.query.get("mode") == "memory" else unquote(urlsplit(name).path)
        if url.get_backend_name() != "sqlite" or name in ("", ":memory:"):
            return None
        return cls(Path(os.path.realpath(name)))

    def copy_to(self, place: Path) -> None:
        """Copy what is committed, including the log, while others may write. Raises LedgerError."""
        try:
            with (
                closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as here,
                closing(sqlite3.connect(place)) as there,
            ):
                here.backup(there)
        except sqlite3.Error as e:
            raise LedgerError(f"{self.path} cannot be copied to be read: {e}") from e

    def check(self, *, create: bool) -> None:
        """Raise InputError if the ledger cannot be opened there, or created with `create`."""
        path = self.path
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            elif not path.exists():
                raise InputError(FIELD, f"there is no ledger at {path}", "start the daemon once to make it")
        except OSError as e:
            raise InputError(
                FIELD, f"{path.parent} cannot be made: {e.strerror}", "give a writable place"
            ) from e
        if not self.size() and DatabaseFile(self._beside("-wal")).size():
            # SQLite would delete the log
            raise InputError(
                FIELD,
                f"{path} is missing or empty, but its log {path.name}-wal is there",
                "put the ledger back from its newest backup, and move the log away",
            )
        if path.is_dir():
            raise InputError(FIELD, f"{path} is a folder", "give a file, e.g. sqlite:////path/ledger.db")
        if (
            path.exists() and not path.is_file()
        ):  # a pipe or /dev/null, which accepts everything and stores nothing
            raise InputError(FIELD, f"{path} is no plain file", "give a file, e.g. sqlite:////path/ledger.db")
        target = path if path.exists() else path.parent
        if create and not os.access(target, os.W_OK):
            raise InputError(FIELD, f"{target} is not writable", "make it writable for the daemon's user")

    def size(self) -> int:
        """Bytes of the database; 0: it is missing or empty. Raises InputError."""
        try:
            size = self.path.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as e:
            raise InputError(
                FIELD, f"{self.path} cannot be looked at: {e.strerror}", "give the daemon's user access"
            ) from e
        return size if size > 1 else 0  # a single byte counts as nothing to SQLite

    # who holds it

    def lock(self) -> None:
        """Lock the ledger. Raises LedgerError if another process holds it, InputError if it cannot be locked."""
        lock = self._beside(".lock")
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as e:
            raise InputError(
                FIELD,
                f"{lock} cannot be opened: {e.strerror}",
                "make its folder writable for the daemon's user",
            ) from e
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise LedgerError(
                f"{self.path} is in use by process {holder}{_command_of(holder)}; one process at a time writes a ledger: "
                "wait until that one has ended, stop it, or use another ledger"
            ) from e
        with suppress(OSError):  # a full disk: the lock works without the pid in it, which is for people
            os.ftruncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        self._lock_fd = fd

    def unlock(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
        self._lock_fd = None

    # room on a full disk

    def keep_room(self) -> None:
        """Reserve disk space beside the ledger, so that the daemon can start on a full disk; retried if there is too little. It never fills
        the disk, not even briefly: a job may be writing."""
        reserve = self._beside(".reserve")
        try:
            kept = reserve.stat().st_blocks * 512 if reserve.exists() else 0
            disk = os.statvfs(self.path.parent)
            if kept < _RESERVE_BYTES <= disk.f_bavail * disk.f_frsize + kept - _LEFT_BYTES:
                with reserve.open("ab") as file:
                    os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
        except OSError:
            with suppress(OSError):
                reserve.unlink()

    def give_room(self) -> bool:
        """Release the reserved space; returns whether there was any."""
        try:
            self._beside(".reserve").unlink()
        except OSError:
            return False
        log.warning("%s: opened in the room that was kept for a full disk: free space there", self.path)
        return True

    # what becomes of them

    def note_opened(self) -> None:
        """From now on these very files are expected."""
        self._opened, self._log = _identity(self.path), None

    def set_log_aside(self) -> None:
        """Rename a log whose database is gone: SQLite would delete it. Raises LedgerError, InputError."""
        log_file = self._beside("-wal")
        if not DatabaseFile(log_file).size():
            return
        self.lock()
        try:
            aside = next(p for n in count(1) if not (p := self._beside(f"-wal.{n}")).exists())
            log_file.rename(aside)
        except OSError as e:
            raise InputError(FIELD, f"{log_file} cannot be moved away: {e.strerror}", "move it away") from e
        finally:
            self.unlock()
        log.warning("%s is the log of a ledger that is gone: it is kept as %s", log_file, aside.name)

    def is_log_same(self) -> bool:
        """Whether the log is the file that SQLite writes to: if it was deleted, SQLite continues with an unlinked one. Raises LedgerError
        if the database itself was moved, deleted or replaced, since everything written from now on would be lost."""
        if self._opened is None:
            return True
        if _identity(self.path) != self._opened:
            raise LedgerError(
                f"{self.path} was moved or replaced while it is in use: move it back, or stop the daemon and put it back"
            )
        found = _identity(self._beside("-wal"))
        self._log = self._log or found
        return found == self._log

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)


def _command_of(pid: str) -> str:
    """Which command of ours a process is, as far as it can be seen."""
    try:
        words = Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
    except (OSError, ValueError):
        return ""
    for n, word in enumerate(words[:-1]):
        ours = word.rpartition("/")[2] == "carbonsched" or word.endswith("/carbonsched/__main__.py")
        if ours and (command := re.match(r"[a-z]+", words[n + 1])):
            return f", carbonsched {command[0]}"
    return ""


def parsed_url(url: str) -> URL:
    """Parse a database URL. Raises InputError without the password that the URL may contain."""
    try:
        parsed = make_url(url)
        # SQLAlchemy takes this name for psycopg2; the extra `postgres` installs psycopg
        return parsed.set(drivername="postgresql+psycopg") if parsed.drivername == "postgresql" else parsed
    except (ArgumentError, ValueError) as e:
        # an invalid URL cannot be split into password and rest
        shown = repr(url) if re.fullmatch(r"[\w./ -]*", url) else "this (not shown, it may hold a password)"
        raise InputError(FIELD, f"{shown} is not a database URL", "write sqlite:////path/ledger.db") from e


def without_mode(url: URL, *, read_only: bool) -> URL:
    """A SQLite URL without `?mode=…`: how the file is opened is decided here. Raises InputError if the two contradict."""
    mode = url.query.get("mode")
    if url.get_backend_name() != "sqlite" or url.query.get("uri") or mode is None:
        return url
    if mode == "ro" and not read_only:
        raise InputError(
            FIELD, "?mode=ro opens the ledger to be read, and it is to be written", "leave it out"
        )
    if mode not in ("ro", "rw", "rwc"):
        raise InputError(FIELD, f"?mode={mode} is none of ro, rw and rwc", "leave it out")
    return url.difference_update_query(["mode"])


def box_of(url: URL) -> tuple[URL, str | None]:
    """Split off our own part of a ledger's URL, `?box=NAME`: the box whose ledger it is. Raises InputError."""
    box = url.query.get("box")
    if box is None:
        return url, None
    if not isinstance(box, str) or not re.fullmatch(BOX, box):
        raise InputError(
            FIELD, f"box={box} is no name of a box", "write small letters, digits and dashes, as gpu-1"
        )
    return url.difference_update_query(["box"]), box


def _identity(path: Path) -> _Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino

"""Syncs SQLite's commits to disk separately from the commit, so that nobody waits for a slow disk while holding a lock.

A commit goes to the log (WAL) in the kernel's cache, which survives a killed daemon. `sync` waits until the disk has it, once for all
commits so far. It also checkpoints the log into the database now and then, which SQLite would otherwise do during a commit.
"""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

_FOLD_COMMITS, _FOLD_BYTES = 1000, 16 * 1024 * 1024
"""Checkpoint the log this seldom: the first commit afterwards waits for the disk, because SQLite restarts the log."""


class LogSync:
    """Syncs one database file that this process writes. Threads may share it.

    Example::

        log_sync.note()  # a transaction was committed
        log_sync.sync()  # and the disk has it
    """

    def __init__(self, database: Path) -> None:
        self._database, self._log = database, database.with_name(f"{database.name}-wal")
        self._mine = threading.local()
        self._syncing = threading.Lock()
        self._committed = self._synced = self._folded = self._folded_bytes = 0

    def note(self) -> None:
        """This thread has committed. Only one thread writes, so this never runs twice at once."""
        self._committed += 1
        self._mine.last = self._committed

    def sync(self) -> bool:
        """Wait until this thread's commits are on disk; returns whether they were not yet. Raises OSError; the next call tries again."""
        mine: int = getattr(self._mine, "last", 0)
        if mine <= self._synced:
            return False
        with self._syncing:
            if mine <= self._synced:  # another thread's sync began after our commit
                return True
            upto = self._committed
            self._flush()
            self._synced = upto
        return True

    def _flush(self) -> None:
        try:
            fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # already checkpointed
            return
        try:
            os.fsync(fd)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        if self._committed - self._folded >= _FOLD_COMMITS or size >= self._folded_bytes + _FOLD_BYTES:
            self._folded, self._folded_bytes = self._committed, size
            self._fold()

    def _fold(self) -> None:
        """Checkpoint the log. What readers still need stays in it until the next time."""
        try:
            with closing(sqlite3.connect(self._database, isolation_level=None, timeout=0)) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as e:
            raise OSError(f"{self._log.name} cannot be folded back: {e}") from e

"""Stores the original rows that were merged: one gzip file per month, with lines of `hash, tab, canonical JSON`.

A file grows by one gzip member at a time, which is synced before the rows leave the ledger. Bytes beyond those that the ledger knows of
come from a daemon that died in between; they are overwritten.
"""

import gzip
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from carbonsched.errors import LedgerError
from carbonsched.ledger.rows import canonical, micros, moment
from carbonsched.ledger.tables import INTERVALS

_LEVEL: Final = 6
_COLUMNS: Final = tuple(column.name for column in INTERVALS.columns)
_TIMES: Final = tuple(name for name in _COLUMNS if name.endswith("_us"))


@dataclass(frozen=True, slots=True)
class Archive:
    """The folder of the monthly files.

    Example::

        archive = Archive(Path("/var/lib/carbonsched/archive"))
        size = archive.append("intervals-2026-11.tsv.gz", rows, 0)
    """

    folder: Path

    @staticmethod
    def name(start_us: int) -> str:
        """The file name for rows of that time."""
        return f"intervals-{moment(start_us):%Y-%m}.tsv.gz"

    def append(self, name: str, rows: Iterable[Mapping[str, Any]], behind: int) -> int:
        """Append rows after the known bytes; returns the new length, all synced. Raises LedgerError."""
        text = "".join(f"{row['hash']}\t{canonical(row)}\n" for row in rows)
        path = self.folder / name
        try:
            new = not path.exists()
            if new:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            with path.open("ab") as file:
                if file.tell() < behind:
                    raise LedgerError(
                        f"{path} has {file.tell()} bytes, and {behind} were written: put it back, or move it away"
                    )
                file.truncate(behind)
                file.write(gzip.compress(text.encode(), _LEVEL, mtime=0))
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            if new:
                _sync(self.folder)
        except OSError as e:
            raise LedgerError(f"{path} cannot be written: {e.strerror}; rows are merged later") from e
        return size

    def has(self, name: str, size: int) -> bool:
        """Whether a month's file exists with at least so many bytes."""
        try:
            return (self.folder / name).stat().st_size >= size
        except OSError:
            return False

    def lines(self, name: str, behind: int = 0) -> Iterator[tuple[str, str]]:
        """(hash, canonical JSON) of each row of a month. Raises OSError, EOFError or ValueError if the file is damaged. behind: bytes to
        skip, at which a slice ended."""
        with (self.folder / name).open("rb") as raw:
            raw.seek(behind)
            with gzip.open(raw, "rt", encoding="utf-8", newline="\n") as file:
                for line in file:
                    digest, tab, text = line.rstrip("\n").partition("\t")
                    if not tab:
                        raise ValueError("a line has no hash")
                    yield digest, text


def row_of(digest: str, text: str) -> dict[str, Any]:
    """A line of an archive as a table row, without the previous row's hash."""
    fields = json.loads(text)
    row = {name: fields.get(name) for name in _COLUMNS}
    for name in _TIMES:
        said = fields.get(name.removesuffix("_us"))
        row[name] = None if said is None else micros(datetime.fromisoformat(said))
    row["hash"] = digest
    return row


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

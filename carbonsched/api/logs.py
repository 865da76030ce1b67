"""Reads a bounded part of a job's log, without trust in the job directory, which the job's owner can write to.

Offsets count from the job's first byte on, over both files: `log.txt` and the preceding `log.1.txt`.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from carbonsched.errors import InputError, StateError
from carbonsched.launch.shim import TIMES_S, bytes_before
from carbonsched.model.files import open_plain

CHUNK_BYTES = 256 * 1024
"""Most bytes per request; the client continues at `next_offset`."""
_MOST_TIMES = 64 * 2**20
_TRIES = 3
"""A log that is started anew between two reads is read again."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a log, and the offset of the next.

    Example:
        >>> read_chunk(Path("no-such-log"), offset=0)
        Chunk(data=b'', offset=0, next_offset=0, size=0)
    """

    data: bytes
    offset: int
    """Position of `data` in the log; after the requested offset if that part is gone."""
    next_offset: int
    size: int
    """Size of the whole log now."""


def read_chunk(path: Path, offset: int, limit: int = CHUNK_BYTES) -> Chunk:
    """Up to `limit` bytes from `offset`; a negative offset counts from the end. No log yet: an empty chunk.

    A link in place of the log is refused, since the daemon may read files that the job's owner may not. Raises InputError for an
    offset after the end (the log was cut: begin again), StateError if the log is not a regular file, or was deleted.
    """
    old = path.with_name(f"{path.stem}.1{path.suffix}")
    for _ in range(_TRIES):
        with ExitStack() as stack:
            now, before = _opened(path, stack), _opened(old, stack)
            if now is None and before is None:
                if (path.parent / "run.json").exists():
                    raise StateError(
                        f"the log is gone: {path.name} was deleted from the job directory; what the job writes next makes a new one"
                    )
                return Chunk(b"", 0, 0, 0)
            if now is None or before is None or not os.path.sameopenfile(now.fileno(), before.fileno()):
                return _piece(now, before, offset, limit)
    raise StateError(f"the log {path.name} is begun anew again and again; ask again")


def offset_since(path: Path, since_s: float) -> int:
    """Offset of the first byte written since then (seconds since 1970), or up to a few seconds before it.

    Raises StateError if it is unknown: an older version began the job.
    """
    known = False
    for name in ("written.1.txt", "written.txt"):
        with ExitStack() as stack:
            file = _opened(path.with_name(name), stack)
            for line in file.read(_MOST_TIMES).splitlines() if file is not None else ():
                at, _, offset = line.partition(b" ")
                try:
                    known, found = True, (float(at), int(offset))
                except ValueError:
                    continue  # the disk was full
                if found[0] > since_s - TIMES_S:
                    return min(max(found[1], 0), read_chunk(path, -1).size)
    if not known:
        raise StateError(
            f"when {path.name} was written is not known: its job has written nothing yet, or was begun by an older version"
        )
    return read_chunk(path, -1).size


def _opened(path: Path, stack: ExitStack) -> BinaryIO | None:
    try:
        return stack.enter_context(open_plain(path))
    except FileNotFoundError:
        return None
    except OSError as e:
        raise StateError(
            f"the log {path.name} cannot be read: {e.strerror}; look into the job directory"
        ) from e


def _size(file: BinaryIO | None) -> int:
    return 0 if file is None else os.fstat(file.fileno()).st_size


def _piece(now: BinaryIO | None, before: BinaryIO | None, offset: int, limit: int) -> Chunk:
    border = _size(before) if now is None else bytes_before(now.read(200))
    first, size = max(border - _size(before), 0), border + _size(now)
    start = max(size + offset if offset < 0 else offset, first)
    if start > size:
        raise InputError("offset", f"{start} lies behind the log's end at {size}", "begin again from 0")
    file, begins, ends = (
        (before, first, border) if before is not None and start < border else (now, border, size)
    )
    start = max(start, begins)
    data = b""
    if file is not None:
        file.seek(start - begins)
        data = file.read(min(limit, ends - start))
    return Chunk(data, start, start + len(data), size)

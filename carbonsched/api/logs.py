"""Reads a bounded piece of a job's log, without trust in the job directory, which the job's owner can write to."""

import os
from dataclasses import dataclass
from pathlib import Path

from carbonsched.errors import InputError, StateError
from carbonsched.model.files import open_plain

CHUNK_BYTES = 256 * 1024
"""Most that one request is given; the reader asks again from `next_offset`."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a log, and where to ask for the next.

    Example:
        >>> read_chunk(Path("no-such-log"), offset=0)
        Chunk(data=b'', offset=0, next_offset=0, size=0)
    """

    data: bytes
    offset: int
    """Where `data` begins in the file."""
    next_offset: int
    size: int
    """Of the whole log at this moment."""


def read_chunk(path: Path, offset: int, limit: int = CHUNK_BYTES) -> Chunk:
    """Up to `limit` bytes from `offset`; a negative offset counts from the end. No log yet: an empty chunk.

    A link in the log's place is refused: the daemon may read what the job's owner may not. Raises InputError for an
    offset behind the end (the log was cut: begin again), StateError for something that is no plain file.
    """
    try:
        opened = open_plain(path)
    except FileNotFoundError:
        return Chunk(b"", 0, 0, 0)
    except OSError as e:
        raise StateError(
            f"the log {path.name} cannot be read: {e.strerror}; look into the job directory"
        ) from e
    with opened as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size + offset) if offset < 0 else offset
        if start > size:
            raise InputError("offset", f"{start} lies behind the log's end at {size}", "begin again from 0")
        file.seek(start)
        data = file.read(min(limit, size - start))
    return Chunk(data, start, start + len(data), size)

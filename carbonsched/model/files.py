"""Writes and reads documents durably: a reader, or a power cut, finds the old file or the new one, never a part."""

import errno
import logging
import os
import stat
from pathlib import Path
from typing import BinaryIO, TypeVar

from pydantic import ValidationError

from carbonsched.model.base import Doc
from carbonsched.model.error_words import first_words

log = logging.getLogger(__name__)

_D = TypeVar("_D", bound=Doc)

MOST_BYTES = 16 * 1024 * 1024
"""Longest document that is read; ours take kilobytes."""


def save(path: Path, doc: Doc, indent: int | None = None, *, lasting: bool = True) -> None:
    """Replace `path` by the document, for whoever may enter its folder to read. Raises OSError; the old one stays then."""
    # an owner's trainer is not of the daemon's group, whatever the umask
    replace(path, doc.model_dump_json(indent=indent), mode=0o644, lasting=lasting)


def replace(path: Path, text: str, mode: int | None = None, *, lasting: bool = True) -> None:
    """Temporary file, fsync, rename, fsync of the folder. mode: by the umask if None. Raises OSError.

    lasting: False leaves both fsync out, for what only a process that lives now reads: a power cut may leave any of it, or nothing.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        if lasting:
            os.fsync(file.fileno())
    temporary.replace(path)
    if lasting:
        sync(path.parent)


def overwrite(path: Path, doc: Doc) -> None:
    """Write a document over the one that is there, in its place on the disk: on a full one there is no other.

    A reader may find a part of it, and reads again. Raises OSError, also where it is longer than that place; the old one
    stays then.
    """
    text = doc.model_dump_json().encode()
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if len(text) > max(found.st_size, found.st_blocks * 512):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.pwrite(fd, text.ljust(found.st_size), 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file to read, of a folder that a job's owner can write to.

    Neither waits (for a pipe's other end) nor follows a link in its place: the daemon may read what the owner may not.
    Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is not a plain file", str(path))
    return os.fdopen(fd, "rb")


def read(path: Path, kind: type[_D]) -> _D:
    """The document. Raises OSError, and ValidationError where it is damaged."""
    with open_plain(path) as file:
        # room for as much as is asked for is made before a byte is read
        text = file.read(min(os.fstat(file.fileno()).st_size, MOST_BYTES) + 1)
    if len(text) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"is longer than {MOST_BYTES} bytes", str(path))
    return kind.model_validate_json(text)


def load(path: Path, kind: type[_D]) -> _D | None:
    """The document; None where there is no file, and, with a warning in the log, where it is damaged."""
    try:
        return read(path, kind)
    except FileNotFoundError:
        return None
    except ValidationError as e:
        problem = first_words(e.errors())
    except OSError as e:
        problem = str(e.strerror)
    log.warning("%s cannot be read and counts as not there: %s", path, problem)
    return None

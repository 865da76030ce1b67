"""Writes and reads documents durably: a reader, or a power cut, finds the old file or the new one, never a part."""

import logging
import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from carbonsched.model.base import Doc

log = logging.getLogger(__name__)

_D = TypeVar("_D", bound=Doc)


def save(path: Path, doc: Doc, indent: int | None = None) -> None:
    """Replace `path` by the document, for whoever may enter its folder to read. Raises OSError; the old one stays then."""
    # an owner's trainer is not of the daemon's group, whatever the umask
    replace(path, doc.model_dump_json(indent=indent), mode=0o644)


def replace(path: Path, text: str, mode: int | None = None) -> None:
    """Temporary file, fsync, rename, fsync of the folder. mode: by the umask if None. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def load(path: Path, kind: type[_D]) -> _D | None:
    """The document; None where there is no file, and, with a warning in the log, where it is damaged."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as e:
        problem = e.errors()[0]["msg"]
    except OSError as e:
        problem = str(e.strerror)
    log.warning("%s cannot be read and counts as not there: %s", path, problem)
    return None

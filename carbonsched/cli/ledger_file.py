"""Opens the ledger that `--ledger` names; errors name that flag."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from carbonsched.cli.flags import naming_flags
from carbonsched.errors import InputError

if TYPE_CHECKING:
    from carbonsched.ledger.ledger import Ledger

FLAG = "--ledger"
_MAGIC = b"SQLite format 3\0"


@contextmanager
def opened(url: str, *, read_only: bool = False, create: bool = False) -> Iterator["Ledger"]:
    """The ledger at a URL, closed at the end. create: make a missing ledger, but no folder for it.

    Raises InputError that names the flag, LedgerError if another process has it.
    """
    ledger = open_ledger(url, read_only=read_only, create=create)
    with ledger:
        yield ledger


def open_ledger(url: str, *, read_only: bool = False, create: bool = False) -> "Ledger":
    """Like `opened`, but the caller closes it."""
    from carbonsched.ledger.database_file import FIELD, DatabaseFile, box_of, parsed_url, without_mode
    from carbonsched.ledger.ledger import Ledger

    with naming_flags({FIELD: FLAG}):
        parsed, _ = box_of(without_mode(parsed_url(url), read_only=read_only))
        file = DatabaseFile.of(parsed)
        if file is not None:
            _check(file.path, create=create)
        return Ledger.open(url, read_only=read_only)


def _check(path: Path, *, create: bool) -> None:
    if not path.parent.is_dir():
        problem = f"there is no folder {path.parent}"
        raise InputError(
            FLAG, problem, "make it first, or name another place" if create else "name a ledger that is there"
        )
    if not path.exists():
        if not create:
            raise InputError(FLAG, f"there is no ledger at {path}", "name one that is there")
    elif path.is_file() and _is_other(path):
        raise InputError(FLAG, f"{path} is no ledger", "name a file of SQLite that carbonsched made")


def _is_other(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except OSError:
        return False  # opening it says why
    return len(start) > 1 and start != _MAGIC  # to SQLite a single byte is an empty file

"""The heads of both chains: what to record elsewhere, and whether a ledger still contains what an earlier head recorded.

A hash chain reveals changes inside it. A chain that was truncated or forged from the beginning is revealed by a head that was recorded out
of reach meanwhile: a line of the system journal, a signed or time-stamped file, an export.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import Connection, Table, and_, or_, select

from carbonsched.errors import InputError
from carbonsched.ledger.chains import Fault
from carbonsched.ledger.rollup import rolled_to
from carbonsched.ledger.rows import GENESIS
from carbonsched.ledger.tables import INTERVALS, JOURNAL
from carbonsched.model.audit import ChainHeads

FIELD: Final = "--against"
MANIFEST: Final = "manifest.json"
HEADS: Final = "heads.json"
_HEX: Final = frozenset("0123456789abcdef")
_MOST_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Head:
    """Where both chains stood.

    Example:
        >>> Head.of({"heads": {"intervals": "6f" * 32, "journal": "0" * 64}}, "noted.json").rows is None
        True
    """

    intervals: str
    journal: str
    rows: int | None
    """Number of the last interval; None: it was recorded without the hash."""
    entries: int | None
    source: str = "the ledger"

    def chain_heads(self) -> ChainHeads:
        return ChainHeads(intervals=self.intervals, journal=self.journal)

    def document(self) -> dict[str, Any]:
        """The document that `Head.of` reads back."""
        return {"heads": self.chain_heads().dump(), "rows": self.rows, "entries": self.entries}

    def line(self) -> str:
        """The log line that `audit verify --against` reads back."""
        return json.dumps(self.document())

    @classmethod
    def of(cls, document: Any, source: str) -> Self:
        """From the output of `audit verify --json`, `audit export` or `audit anchor`. Raises InputError for anything else."""
        heads = document.get("heads", document) if isinstance(document, Mapping) else None
        if not isinstance(heads, Mapping):
            raise _bad(source, "it has no heads")
        for name in ("intervals", "journal"):
            value = heads.get(name)
            if not isinstance(value, str) or len(value) != len(GENESIS) or not _HEX.issuperset(value):
                raise _bad(source, f"heads.{name} is {value!r}, not a hash in hex")
        counts = [document.get(name) for name in ("rows", "entries")]
        if any(n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 0) for n in counts):
            raise _bad(source, f"rows and entries are {counts[0]!r} and {counts[1]!r}")
        return cls(heads["intervals"], heads["journal"], counts[0], counts[1], source)


def _bad(source: str, why: str) -> InputError:
    return InputError(
        FIELD,
        f"{source}: {why}",
        "give what `audit verify --json` or `audit anchor` wrote, a folder of `audit export`, or log lines",
    )


def read_heads(path: Path) -> tuple[Head, ...]:
    """Every head in a file (JSON, or lines of the system journal) or folder. Raises InputError if there is none."""
    if path.is_dir():
        names = [name for name in (HEADS, MANIFEST) if (path / name).is_file()]
        if not names:
            raise _bad(str(path), f"there is neither a {MANIFEST} nor a {HEADS} in it")
        return tuple(head for name in names for head in read_heads(path / name))
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _bad(str(path), "it is larger than 64 MiB")
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise _bad(str(path), f"it cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise _bad(str(path), "it is no text") from e
    try:
        return (Head.of(json.loads(text), str(path)),)
    except (ValueError, RecursionError) as e:
        found = _of_lines(text, path)
        if not found:
            raise _bad(str(path), f"it is no JSON, and no line of it has heads: {e}") from e
        return found


def _of_lines(text: str, path: Path) -> tuple[Head, ...]:
    found = []
    for number, each in enumerate(text.splitlines(), start=1):
        line = _message(each)
        begin = line.find('{"heads"')
        if begin >= 0:
            try:
                document, _ = json.JSONDecoder().raw_decode(line[begin:])
            except (ValueError, RecursionError):
                continue
            found.append(Head.of(document, f"{path}, line {number}"))
    return tuple(found)


def _message(line: str) -> str:
    """The message of a JSON log line (the daemon's or the journal's); any other line is its own message."""
    if line.startswith("{") and '\\"heads\\"' in line:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            return line
        return str(said.get("message") or said.get("MESSAGE") or line)
    return line


def head_of(connection: Connection) -> Head:
    """The current heads of both chains."""
    rows, intervals = last_of(connection, INTERVALS)
    entries, journal = last_of(connection, JOURNAL)
    return Head(intervals, journal, rows, entries)


def last_of(connection: Connection, table: Table) -> tuple[int, str]:
    """(number, hash) of a chain's last row."""
    found = connection.execute(select(table.c.id, table.c.hash).order_by(table.c.id.desc()).limit(1)).first()
    return (0, GENESIS) if found is None else (found[0], found[1])


def missed(connection: Connection, head: Head) -> Fault | None:
    """What an earlier head recorded and the chains no longer contain."""
    for table, want, number, noun in (
        (INTERVALS, head.intervals, head.rows, "row"),
        (JOURNAL, head.journal, head.entries, "journal entry"),
    ):
        if what := _missed(connection, table, want, number, noun):
            row, said = what
            return Fault(row if table is INTERVALS else None, f"{said} ({head.source})")
    return None


def _missed(
    connection: Connection, table: Table, want: str, number: int | None, noun: str
) -> tuple[int | None, str] | None:
    last, _ = last_of(connection, table)
    if want == GENESIS or number == 0:
        return None
    merged_to = rolled_to(connection, 0)[0] if table is INTERVALS else 0
    if number is None:
        found = connection.execute(select(table.c.id).where(table.c.hash == want).limit(1)).scalar()
        if found is not None or (merged_to and _is_merged(connection, want)):
            return None
        return (
            None,
            f"no {noun} has the hash that an earlier head saw: the chain was cut off or made anew before it",
        )
    if last < number:
        many = f"{noun} {number} is" if last + 1 == number else f"{noun}s {last + 1} to {number} are"
        many = many.replace("entrys", "entries")
        return last + 1, f"{many} missing: an earlier head saw them"
    if number <= merged_to:
        seen = _hashes(connection, number)
        if not seen or seen == {want}:
            return None  # the journal's own head, which covers the roll-up, is searched for as well
        return number, f"{noun} {number}, merged since, is not the one an earlier head saw"
    have = connection.execute(select(table.c.hash).where(table.c.id == number)).scalar()
    if have != want:
        return (
            number,
            f"{noun} {number} is not the one an earlier head saw: the chain was made anew up to it",
        )
    return None


def _hashes(connection: Connection, number: int) -> set[str]:
    """Where the hash of a merged row is still recorded: in the journal, and in rows that stand for it."""
    t, j = INTERVALS.c, JOURNAL.c
    found = set(connection.execute(select(j.interval_hash).where(j.interval_id == number)).scalars())
    last = and_(t.id == number, t.last_hash.is_not(None))
    return found | set(connection.execute(select(t.last_hash).where(last)).scalars())


def _is_merged(connection: Connection, want: str) -> bool:
    """Whether a row with that hash is among the merged ones, as far as that is still recorded."""
    t, j = INTERVALS.c, JOURNAL.c
    of_rows = select(t.id).where(or_(t.first_hash == want, t.last_hash == want)).limit(1)
    of_journal = select(j.id).where(j.interval_hash == want).limit(1)
    return any(connection.execute(query).first() for query in (of_journal, of_rows))

"""What `audit verify`, `audit export`, `audit diff` and `audit anchor` answer, in the API and in `--json`."""

from typing import Any

from carbonsched.model.base import Doc, UtcTime


class Balance(Doc):
    """Conservation over one life of one board's counter: what was charged against what was counted, in millijoules.

    Example:
        >>> Balance(board="GPU-1", counter_epoch="boot:0", charged_mj=900, counted_mj=900, holes_mj=0, ok=True).ok
        True
    """

    board: str
    counter_epoch: str
    charged_mj: int
    """Σ energy of the rows that carry a counter's start and end."""
    counted_mj: int
    """How far the counter moved over the stretches those rows cover, each stretch once."""
    holes_mj: int
    """How far it moved in time that no row of the board covers: energy that was charged to nobody."""
    ok: bool
    """Every counted joule was charged once: charged and counted are equal, and there are no holes."""


class ChainHeads(Doc):
    """The last hash of each chain. Noted elsewhere, it proves later that the chain up to it was not rewritten.

    Example:
        >>> ChainHeads(intervals="6f" * 32).journal == "0" * 64
        True
    """

    intervals: str | None = "0" * 64
    """64 zeros: there is no row yet. None: the database file is damaged."""
    journal: str | None = "0" * 64


class MergedRows(Doc):
    """`audit verify`: of rows that were merged, how far what stands for them was recomputed.

    Example:
        >>> MergedRows(rows=18, recomputed=18, gone=0).recomputed
        18
    """

    rows: int
    """That were merged. What stands for them is linked: its hashes and its sums are as they were when it was made."""
    recomputed: int | None
    """Of them: from the archive, hash by hash; None: no archive was looked at."""
    gone: int | None
    """Of them: in no file of the archive any more."""


class AuditResult(Doc):
    """`audit verify`.

    Example:
        >>> AuditResult(ok=True, rows=18_342, first_bad=None).problem is None
        True
    """

    ok: bool
    rows: int | None
    """None: the database file is too damaged to count them."""
    first_bad: int | None
    problem: str | None = None
    conservation: tuple[Balance, ...] = ()
    """By board and counter epoch; empty where no board has an energy counter."""
    heads: ChainHeads = ChainHeads()
    entries: int | None = None
    """Entries of the journal; None: not counted."""
    compared: int = 0
    """Earlier heads that the chains were compared with."""
    since: int | None = None
    """Row up to which the intervals were taken as verified; None: all were looked at."""
    merged: MergedRows | None = None
    """None: no row was merged."""
    vouched: tuple[str, ...] = ()
    """Who says that such a head is as old as it says: signatures and time stamps that were verified."""


class AuditProgress(Doc):
    """`GET /v1/audit/progress`: how far the verification came that was asked for last.

    Example:
        >>> AuditProgress(part="rows", share=0.25).share
        0.25
    """

    part: str | None
    """rows, archive or hours; None: none runs."""
    share: float | None
    """Of all that it will take, estimated."""


class ExportedFile(Doc):
    """One file of an export.

    Example:
        >>> ExportedFile(sha256="5d" * 32, lines=18_342).lines
        18342
    """

    sha256: str
    lines: int


class ExportedTotal(Doc):
    """What the rows of a job, or of nobody, come to; grams where energy and intensity are known.

    Example:
        >>> ExportedTotal(job_id=None, rows=12, energy_mj=7200, grams=0.4).job_id is None
        True
    """

    job_id: str | None
    rows: int
    energy_mj: int
    grams: float
    """At the grid's intensity, as decided."""


class Exported(Doc):
    """`audit export`: the manifest of its folder.

    Example:
        >>> Exported(made_at="2026-11-28T12:00:00Z", version="0.1.0", ledger_schema="0004", heads=ChainHeads(), rows=0, entries=0, files={}, totals=()).format
        1
    """

    format: int = 1
    made_at: UtcTime
    version: str
    ledger_schema: str
    heads: ChainHeads
    rows: int
    """Number of the last interval."""
    entries: int
    """Number of the journal's last entry."""
    begins: dict[str, str] = {}
    """By tier of rows (0 as written, 1 minutes, 2 hours): the hash that its first row here follows; zeros where none was merged."""
    files: dict[str, ExportedFile]
    totals: tuple[ExportedTotal, ...]


class RolledUp(Doc):
    """`audit roll-up`: what was merged.

    Example:
        >>> RolledUp(rows=18, merged=3, slices=1, longest_s=0.01).rows
        18
    """

    rows: int = 0
    merged: int = 0
    """Into so many."""
    slices: int = 0
    """Transactions."""
    longest_s: float = 0.0
    """Of these."""


class ChainDiff(Doc):
    """Where one chain of two exports parts.

    Example:
        >>> ChainDiff(chain="intervals", a=12, b=15, common=12).first_different is None
        True
    """

    chain: str
    a: int
    """Rows."""
    b: int
    common: int
    """Rows that are the same in both, from the first on."""
    first_different: int | None = None
    """Number of the first row that both have and that differs."""
    fields: dict[str, tuple[Any, Any]] = {}
    """Of that row: field → (in A, in B)."""


class AuditDiff(Doc):
    """`audit diff`.

    Example:
        >>> AuditDiff(same=True, continued=None, chains=()).same
        True
    """

    same: bool
    continued: str | None
    """The one that goes on where the other ends, `a` or `b`; None: neither, or they are the same."""
    chains: tuple[ChainDiff, ...]


class Anchored(Doc):
    """`audit anchor`: heads that were written down, and who vouches for them.

    Example:
        >>> Anchored(folder="/root/heads", heads=ChainHeads(), rows=0, entries=0).stamped_at is None
        True
    """

    folder: str
    heads: ChainHeads
    rows: int
    entries: int
    signed: bool = False
    stamped_at: UtcTime | None = None
    """By the time stamp's authority; None: none was asked for."""


class AddedUp(Doc):
    """`audit add-up`: the totals of how many hours were made.

    Example:
        >>> AddedUp(hours=8760).hours
        8760
    """

    hours: int

"""What `audit verify`, `audit export`, `audit diff` and `audit anchor` answer, in the API and in `--json`."""

from typing import Any

from carbonsched.model.base import Doc, UtcTime


class Balance(Doc):
    """Conservation over one life of one board's counter: charged against counted energy, in millijoules.

    Example:
        >>> Balance(board="GPU-1", counter_epoch="boot:0", charged_mj=900, counted_mj=900, holes_mj=0, ok=True).ok
        True
    """

    board: str
    counter_epoch: str
    charged_mj: int
    """Σ energy of the rows that carry a counter's start and end."""
    counted_mj: int
    """How far the counter moved over the stretches that those rows cover, each stretch once."""
    holes_mj: int
    """How far it moved in time that no row of the board covers: energy charged to nobody."""
    ok: bool
    """Every counted joule was charged once: charged and counted are equal, and there are no holes."""


class ChainHeads(Doc):
    """The last hash of each chain. Recorded elsewhere, it proves later that the chain up to it was not rewritten.

    Example:
        >>> ChainHeads(intervals="6f" * 32).journal == "0" * 64
        True
    """

    intervals: str | None = "0" * 64
    """64 zeros: there is no row yet. None: the database file is damaged."""
    journal: str | None = "0" * 64


class MergedRows(Doc):
    """`audit verify`: how far the rows behind merged rows were recomputed.

    Example:
        >>> MergedRows(rows=18, recomputed=18, gone=0).recomputed
        18
    """

    rows: int
    """Rows that were merged. The merged row is linked: its hashes and sums are those of its creation."""
    recomputed: int | None
    """Of these: recomputed from the archive, hash by hash; None: no archive was read."""
    gone: int | None
    """Of these: no longer in any archive file."""


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
    """Row up to which the intervals count as verified already; None: all were verified."""
    merged: MergedRows | None = None
    """None: no row was merged."""
    vouched: tuple[str, ...] = ()
    """Who vouches for the age of such a head: signatures and time stamps that were verified."""


class AuditProgress(Doc):
    """`GET /v1/audit/progress`: the progress of the newest verification.

    Example:
        >>> AuditProgress(part="rows", share=0.25).share
        0.25
    """

    part: str | None
    """rows, archive or hours; None: none runs."""
    share: float | None
    """Estimated share of the whole verification."""


class ExportedFile(Doc):
    """One file of an export.

    Example:
        >>> ExportedFile(sha256="5d" * 32, lines=18_342).lines
        18342
    """

    sha256: str
    lines: int


class ExportedTotal(Doc):
    """The sums of a job's rows, or of rows without a job; grams if energy and intensity are known.

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
    """By tier of rows (0 as written, 1 minutes, 2 hours): the hash before its first row in this export; zeros if nothing was merged."""
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
    """Rows after merging."""
    slices: int = 0
    """Transactions."""
    longest_s: float = 0.0
    """The longest of these."""


class ChainDiff(Doc):
    """Where one chain of two exports differs.

    Example:
        >>> ChainDiff(chain="intervals", a=12, b=15, common=12).first_different is None
        True
    """

    chain: str
    a: int
    """Rows."""
    b: int
    common: int
    """Rows that are equal in both, from the first on."""
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
    """The export that continues the other, `a` or `b`; None: neither, or they are equal."""
    chains: tuple[ChainDiff, ...]


class Anchored(Doc):
    """`audit anchor`: heads that were recorded, and who vouches for them.

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
    """`audit add-up`: the number of hours whose totals were computed.

    Example:
        >>> AddedUp(hours=8760).hours
        8760
    """

    hours: int

"""States how a report was made, of which box, by which software, and which hashes a person signs."""

import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from carbonsched import __version__
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.rows import micros
from carbonsched.model.accounting import BoxIdentity
from carbonsched.model.base import Doc, UtcTime
from carbonsched.model.energy import BudgetAccount
from carbonsched.report.boundary import Boundary
from carbonsched.report.parts import FeedUse, KindSums, NamedSums, PueUse
from carbonsched.report.provenance import energy_words, intensity_words
from carbonsched.units import MJ_PER_J

BOX: Final = "box"
"""Kind of the journal entry that names the box of the rows from then on."""
_LIBRARIES: Final = ("codecarbon", "nvidia-ml-py", "sqlalchemy")


class BoxUse(Doc):
    """The box of the rows from a time on.

    Example:
        >>> BoxUse(since="2026-11-22T10:00:00Z", box=BoxIdentity(name="trainer-07", machine=None)).box.words
        'trainer-07'
    """

    since: UtcTime
    box: BoxIdentity


class Restatement(Doc):
    """Energy of a job that was unknown when it was used, and became known later.

    Example:
        >>> Restatement(at="2026-11-22T10:00:00Z", job_id="a-1", board="GPU-1", energy_j=300, spent_g=0.02, rows=12).rows
        12
    """

    at: UtcTime
    job_id: str
    board: str
    energy_j: float
    spent_g: float
    rows: int
    """Number of rows of unknown energy that the new ones replace."""


class SignOff(Doc):
    """The text above the signatures: the heads of the ledger when the report was made. Names and dates are left blank.

    Example:
        >>> SignOff(intervals="5d" * 32, journal="e1" * 32, rows=12, entries=3).rows
        12
    """

    intervals: str
    """Hash of the last row, which covers all before it."""
    journal: str
    rows: int
    entries: int
    prepared_by: str = ""
    reviewed_by: str = ""
    signed_at: str = ""
    check: str = (
        "carbonsched audit verify recomputes every gram and says whether these heads are in the ledger; carbonsched audit export "
        "gives rows and a script that needs Python alone"
    )


class Statement(Doc):
    """How the figures were determined.

    Example::

        print(report.statement.box.words, *report.statement.method, sep="\\n")
    """

    organisation: str | None
    site: str | None
    box: BoxIdentity
    """The box that made the report."""
    boxes: tuple[BoxUse, ...]
    """The boxes of the rows, by the journal; rows before the first entry have none."""
    method: tuple[str, ...]
    """One sentence each."""
    versions: dict[str, str]
    sign_off: SignOff


def boxes(ledger: Ledger) -> tuple[BoxUse, ...]:
    """The boxes of the rows with the beginning of each, oldest first."""
    return tuple(
        BoxUse(since=entry["at"], box=BoxIdentity(name=entry["name"], machine=entry["machine"]))
        for entry in ledger.history(None, kinds=(BOX,))
    )


def box_of(found: Sequence[BoxUse], start_us: int) -> str:
    """The box of a row; empty: the journal does not say."""
    mine = next((use.box for use in reversed(found) if micros(use.since) <= start_us), None)
    return "" if mine is None else mine.name or mine.machine or ""


def within(found: Sequence[BoxUse], start_us: int, end_us: int) -> tuple[BoxUse, ...]:
    """Those that apply in a span."""
    until = [micros(use.since) for use in found[1:]] + [end_us + 1]
    return tuple(
        use for use, end in zip(found, until, strict=False) if end > start_us and micros(use.since) <= end_us
    )


def restatements(entries: Iterable[Mapping[str, Any]]) -> tuple[Restatement, ...]:
    """From `restated` entries of the journal, each with its job's id."""
    return tuple(
        Restatement(
            at=entry["at"],
            job_id=entry["job_id"],
            board=entry["board"],
            energy_j=entry["energy_mj"] / MJ_PER_J,
            spent_g=entry["grams"],
            rows=entry["rows"],
        )
        for entry in entries
    )


def method(
    boundary: Boundary,
    methods: Sequence[NamedSums],
    pues: Sequence[PueUse],
    feeds: Sequence[FeedUse],
    kinds: Sequence[KindSums],
    accounts: Sequence[BudgetAccount],
) -> tuple[str, ...]:
    """The method statement."""
    pue = "; ".join(f"{use.pue:g} ({use.source})" for use in pues) or "not known"
    sources = sorted({f"{feed.provider}, zone {feed.zone}, {feed.basis}" for feed in feeds})
    charged = ", then ".join(accounts) or "location"
    return (
        "Emissions are energy × PUE × carbon intensity, computed for each interval of the ledger and summed; operational emissions only.",
        boundary.sentence,
        f"How the joules are known: {energy_words(methods)}.",
        f"PUE: {pue}.",
        f"Intensities: {'; '.join(sources) or 'none is known'}; {intensity_words(kinds)}.",
        f"Budgets are charged by account: {charged}. Figures as decided go by what was known when the energy was used, as settled by what "
        "became known since.",
        "What is not known is in no sum; it is counted in seconds and listed with its reason. What is estimated is marked.",
        "Effects (waste, FLOPs, clocks, timing) answer different questions, each against its own counterfactual, and are not added up.",
    )


def versions(started: Sequence[Mapping[str, Any]], schema: str) -> dict[str, str]:
    """started: the journal's entries of a job's starts, which name the trainer's software."""
    found = {"carbonsched": __version__, "python": platform.python_version(), "ledger schema": schema}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for entry in started:
        told = entry.get("versions")
        found |= (
            {f"trainer {name}": str(value) for name, value in told.items()} if isinstance(told, dict) else {}
        )
    return found

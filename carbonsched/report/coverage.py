"""Computes the share of the requested time that is covered: where energy and intensity are known, and why they are not elsewhere.

Time is counted per board: two boards for an hour are two hours. A job's report requests the time in which it had a process, by the journal,
on the boards that were charged to it then; a period's report requests all of the period on every board that it saw.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from carbonsched import text
from carbonsched.ledger.rows import moment
from carbonsched.model.base import Doc
from carbonsched.model.energy import EnergyMethod
from carbonsched.report.parts import Gap

Span = tuple[int, int]
_TICK_US: Final = 1_000_000
"""A shorter interval without a row is not listed as a gap, since readings are a tick apart. It is still counted."""
NO_ROW: Final = "no row: no meter was read then (the daemon did not run, or did not know of the board)"
_NOBODY: Final = "none"


class BoardCoverage(Doc):
    """The coverage of one board's time, in seconds.

    Example:
        >>> BoardCoverage(board="host", asked_s=100, covered_s=90, energy_unknown_s=4, intensity_unknown_s=6, no_row_s=0).covered_s
        90.0
    """

    board: str
    asked_s: float
    covered_s: float
    """Time with known energy and intensity."""
    energy_unknown_s: float
    intensity_unknown_s: float
    """Time with known energy and unknown intensity."""
    no_row_s: float
    """Time without any row."""


class Completeness(Doc):
    """The covered part of the requested time. The parts add up to `asked_s`; `gaps` of the report lists each interval with its reason.

    Example:
        >>> Completeness(asked_s=100, covered_s=90, energy_unknown_s=4, intensity_unknown_s=6, no_row_s=0, share=0.9, boards=()).words
        '90.00% of 1 min 40 s board time is covered; not: energy unknown 4 s, intensity unknown 6 s'
    """

    asked_s: float
    covered_s: float
    energy_unknown_s: float
    intensity_unknown_s: float
    no_row_s: float
    share: float | None
    """covered_s ÷ asked_s; None: no time was requested."""
    boards: tuple[BoardCoverage, ...]

    @property
    def words(self) -> str:
        """For people."""
        if self.share is None:
            return "no time was asked for"
        parts = (
            ("energy unknown", self.energy_unknown_s),
            ("intensity unknown", self.intensity_unknown_s),
            ("no row", self.no_row_s),
        )
        missing = ", ".join(f"{name} {text.long_duration(seconds)}" for name, seconds in parts if seconds > 0)
        # never 100% if something is missing
        share = f"{min(self.share, 0.9999) if missing else 1.0:.2%}"
        return (
            f"{share} of {text.long_duration(self.asked_s)} board time is covered; not: {missing or 'none'}"
        )


@dataclass(slots=True)
class Watched:
    """The intervals of each board's rows by what is known; adjacent ones of one kind are joined.

    Example:
        >>> watched = Watched()
        >>> watched.add({"board": "b", "start_us": 0, "end_us": 9_000_000, "energy_mj": 5, "grams": 1.0})
        >>> completeness({"b": [(0, 10_000_000)]}, watched)[0].share
        0.9
    """

    spans: dict[str, list[tuple[int, int, str]]] = field(default_factory=dict)

    def add(self, row: Mapping[Any, Any]) -> None:
        kind = "energy" if row["energy_mj"] is None else "intensity" if row["grams"] is None else "known"
        self.note(row["board"], row["start_us"], row["end_us"], kind)

    def note(self, board: str, start: int, end: int, kind: str) -> None:
        """Add an interval of rows of one kind."""
        mine = self.spans.setdefault(board, [])
        if mine and mine[-1][1] == start and mine[-1][2] == kind:
            mine[-1] = (mine[-1][0], end, kind)
        else:
            mine.append((start, end, kind))

    def in_order(self, board: str) -> list[tuple[int, int, str]]:
        """The intervals by time. A late report is last in the ledger; if two cover the same time the first counts."""
        found: list[tuple[int, int, str]] = []
        for start, end, kind in sorted(self.spans.get(board, ())):
            start = max(start, found[-1][1]) if found else start
            if start < end:
                found.append((start, end, kind))
        return found


def asked_by_period(watched: Watched, start_us: int, end_us: int) -> dict[str, list[Span]]:
    """All of a period, on every board that it saw."""
    return {board: [(start_us, end_us)] for board in (*watched.spans,) or (_NOBODY,)}


def asked_by_job(watched: Watched, lives: Sequence[Span]) -> dict[str, list[Span]]:
    """lives: times when the job had a process. A board is included in those in which a row of it was charged."""
    asked: dict[str, list[Span]] = {}
    for start, end in lives:
        boards = [b for b, spans in watched.spans.items() if any(s < end and e > start for s, e, _ in spans)]
        for board in boards or [_NOBODY]:
            asked.setdefault(board, []).append((start, end))
    return asked


def completeness(
    asked: Mapping[str, Iterable[Span]], watched: Watched
) -> tuple[Completeness, tuple[Gap, ...]]:
    """(the coverage, the intervals without any row)."""
    boards, missing = [], []
    for board, spans in sorted(asked.items()):
        sums = dict.fromkeys(("asked", "known", "energy", "intensity", "none"), 0)
        for start, end in spans:
            at = start
            for first, last, kind in [*watched.in_order(board), (end, end, "")]:
                first, last = max(first, start), min(last, end)
                if first > last:
                    continue
                if first > at:
                    sums["none"] += first - at
                    if first - at > _TICK_US:
                        missing.append(_missing(board, at, first))
                if kind:
                    sums[kind] += last - first
                at = max(at, last)
            sums["asked"] += end - start
        seconds = {name: us / 1e6 for name, us in sums.items()}
        boards.append(
            BoardCoverage(
                board=board,
                asked_s=seconds["asked"],
                covered_s=seconds["known"],
                energy_unknown_s=seconds["energy"],
                intensity_unknown_s=seconds["intensity"],
                no_row_s=seconds["none"],
            )
        )
    return _whole(boards), tuple(missing)


def _whole(boards: Sequence[BoardCoverage]) -> Completeness:
    asked, covered = sum(b.asked_s for b in boards), sum(b.covered_s for b in boards)
    return Completeness(
        asked_s=asked,
        covered_s=covered,
        energy_unknown_s=sum(b.energy_unknown_s for b in boards),
        intensity_unknown_s=sum(b.intensity_unknown_s for b in boards),
        no_row_s=sum(b.no_row_s for b in boards),
        share=covered / asked if asked else None,
        boards=tuple(boards),
    )


def _missing(board: str, start_us: int, end_us: int) -> Gap:
    return Gap(
        board=board,
        start=moment(start_us),
        end=moment(end_us),
        kind="missing",
        energy_j=None,
        spent_g=None,
        method=EnergyMethod.UNAVAILABLE,
        reason=NO_ROW,
    )

"""Finds time that was charged twice: two rows of one board over the same time that are no shares of it.

Rows of one board follow each other. Shares of a board that jobs used together lie side by side, say so in their reason, and follow each
other per job. If the wall clock was set back, the row says so, and the time may be charged again.
"""

import re
from bisect import bisect_left, insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Self

SLACK_US: Final = 1_000_000
"""Microseconds by which two rows may overlap: the wall clock is slewed."""
_JOIN_US: Final = 1000
"""Spans closer than this are joined."""
_SHARED: Final = re.compile(r"\bshared\b|\bsplit by (?!time)")
_SET_BACK: Final = re.compile(r"\bwall clock was (set back|stepped by -)")


@lru_cache(maxsize=1024)
def _reason_marks(reason: str) -> tuple[bool, bool]:
    """Whether a row's reason says that it is a share, and that the wall clock was set back."""
    return bool(_SHARED.search(reason)), bool(_SET_BACK.search(reason))


@dataclass(slots=True)
class _Spans:
    """Charged time as (start, end, last row of it), ascending and disjoint."""

    held: list[tuple[int, int, int]] = field(default_factory=list)

    def overlaps(self, start: int, end: int) -> int | None:
        """The row of a span that overlaps [start, end) by more than the slack."""
        allowed = min(SLACK_US, (end - start) // 2)
        i = max(bisect_left(self.held, (start,)) - 1, 0)
        while i < len(self.held) and self.held[i][0] < end:
            first, last, row = self.held[i]
            if min(end, last) - max(start, first) > allowed:
                return row
            i += 1
        return None

    def add(self, start: int, end: int, row: int) -> None:
        i = bisect_left(self.held, (start,))
        if i and start <= self.held[i - 1][1] + _JOIN_US:
            i -= 1
        while i < len(self.held) and self.held[i][0] <= end + _JOIN_US:
            first, last, _ = self.held.pop(i)
            start, end = min(start, first), max(end, last)
        insort(self.held, (start, end, row))


@dataclass(slots=True)
class Overlaps:
    """The time charged so far, by board.

    Example:
        >>> row = {"id": 1, "board": "host", "job_id": None, "start_us": 0, "end_us": 10_000_000, "energy_mj": 5, "reason": None}
        >>> found = Overlaps()
        >>> found.add(row), found.add(row | {"id": 2})
        (None, 'row 2 charges time of board host that row 1 charged already')
    """

    _alone: dict[str, _Spans] = field(default_factory=dict)
    _shared: dict[str, _Spans] = field(default_factory=dict)
    _of_job: dict[tuple[str, str | None], _Spans] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> str | None:
        """Add the next row of the chain; returns what it charges twice, in words. Unknown energy is charged to nobody."""
        board, job, reason = row["board"], row["job_id"], row["reason"] or ""
        start, end, number = row["start_us"], row["end_us"], row["id"]
        shared, set_back = _reason_marks(reason)
        if set_back:  # the first row after it says so, whether its energy is known or not
            self._forget(board, start)
        if row["energy_mj"] is None or end <= start:
            return None
        own = self._of_job.setdefault((board, job), _Spans())
        alone, beside = self._alone.setdefault(board, _Spans()), self._shared.setdefault(board, _Spans())
        before = alone.overlaps(start, end)
        if before is None:
            before = (own if shared else beside).overlaps(start, end)
        if shared:
            own.add(start, end, number)
            beside.add(start, end, number)
        else:
            alone.add(start, end, number)
        if before is None:
            return None
        return f"row {number} charges time of board {board} that row {before} charged already"

    def state(self) -> list[list[Any]]:
        """As JSON has it."""
        parts = (self._alone.items(), self._shared.items(), self._of_job.items())
        return [[[key, spans.held] for key, spans in part] for part in parts]

    @classmethod
    def of(cls, state: Any) -> Self:
        """From `state`. Raises ValueError, TypeError or IndexError for what is none."""
        made, (alone, shared, of_job) = cls(), state
        for key, held in alone:
            made._alone[key] = _Spans([tuple(each) for each in held])
        for key, held in shared:
            made._shared[key] = _Spans([tuple(each) for each in held])
        for (board, job), held in of_job:
            made._of_job[board, job] = _Spans([tuple(each) for each in held])
        return made

    def _forget(self, board: str, start: int) -> None:
        """Forget the time from `start` on: the clock repeats it."""
        mine = [spans for (name, _), spans in self._of_job.items() if name == board]
        for spans in (self._alone.get(board), self._shared.get(board), *mine):
            if spans is not None:
                spans.held = [
                    (first, min(last, start), row) for first, last, row in spans.held if first < start
                ]

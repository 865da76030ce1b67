"""Reads a job's `events.jsonl` from a stored offset: whole lines only, and a bounded piece per call."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from carbonsched.model.error_words import first_words
from carbonsched.model.files import open_plain
from carbonsched.model.protocol import EVENTS, Event

log = logging.getLogger(__name__)

PIECE_BYTES = 1024 * 1024
"""Bytes read per call, and the longest valid line: `segment_done` names every selected tensor, some 60 bytes each."""
_STEP = (b'"event":"step"', b'"event": "step"')
"""Inside a JSON string these quotes would be escaped."""
_PIECES_PASSED = 64
"""Pieces of an overlong line that one call skips in search of its end."""


@dataclass(slots=True)
class EventFollower:
    """Follows one file that the trainer appends to.

    Example:
        >>> EventFollower(Path("events.jsonl")).read()  # not written yet
        []
    """

    path: Path
    offset: int = 0
    """Bytes read: always at the start of a line, or inside one that is being skipped."""
    behind: bool = False
    """Whether whole lines were left for the next call."""
    _passing: bool = False
    """Whether `offset` is inside an overlong line."""
    _vanished: bool = False
    """Whether the file was missing at the last read."""

    def read(self, until: int | None = None) -> list[Event]:
        """Read the new events of one piece, up to byte `until`; see `events`."""
        return list(self.events(until))

    def events(self, until: int | None = None, *, brief: bool = False) -> Iterator[Event]:
        """Yield the new events of one piece, up to byte `until`. An incomplete last line stays for the next call, and so do events that the
        caller does not take. brief: yield only the first and last of consecutive steps.

        A line that is no event of ours (another program may speak the protocol loosely) or is longer than a piece is logged and skipped:
        one bad line must neither stop the metering of a job nor fill the daemon's memory. Raises OSError if the file cannot be read.
        """
        self.behind = False  # also if it cannot be read: nobody should wait for more then
        most = PIECE_BYTES if until is None else min(max(until - self.offset, 0), PIECE_BYTES)
        try:
            with open_plain(self.path) as file:
                self._notice_cut(os.fstat(file.fileno()).st_size)
                file.seek(self.offset)
                data = file.read(most)
                if len(data) == PIECE_BYTES and b"\n" not in data:
                    self._pass_over(file, until)
                    return
        except FileNotFoundError:
            self._vanished, data = True, b""
        whole = data[: data.rfind(b"\n") + 1]
        behind, self.behind = len(data) == PIECE_BYTES, True
        # by newlines alone: splitlines() would also cut at a lone carriage return, which a progress bar may write
        *lines, _ = whole.split(b"\n")
        steps = [brief and any(mark in line for mark in _STEP) for line in (b"", *lines, b"")]
        for line, *near in zip(lines, steps, steps[1:], steps[2:], strict=False):
            self.offset += len(line) + 1
            if self._passing:
                self._passing = False
            elif line.strip() and not all(near):
                yield from self._event(line)
        self.behind = behind

    def replay(self, until: int) -> Iterator[Event]:
        """Yield all events up to byte `until`, with one piece in memory at a time. Most lines are steps; only those that matter are yielded."""
        while self.offset < until:
            before = self.offset
            yield from self.events(until, brief=True)
            if self.offset == before:
                return

    def _pass_over(self, file: BinaryIO, until: int | None) -> None:
        """Skip the rest of an overlong line, or a bounded part of it."""
        if not self._passing:
            text = "%s: passed over a line of more than %d bytes from byte %d"
            log.warning(text, self.path, PIECE_BYTES, self.offset)
        self._passing, self.behind = True, True
        self.offset += PIECE_BYTES
        for _ in range(_PIECES_PASSED):
            data = file.read(PIECE_BYTES if until is None else min(PIECE_BYTES, until - self.offset))
            end = data.find(b"\n")
            self.offset += len(data) if end < 0 else end
            if end >= 0 or len(data) < PIECE_BYTES:
                return

    def _notice_cut(self, size: int) -> None:
        """Follow a file that became shorter from its new end on, and one that was replaced from its beginning."""
        if size < self.offset:
            log.warning("%s: was cut from %d bytes or more to %d", self.path, self.offset, size)
            self.offset, self._passing = 0 if self._vanished else size, False
        self._vanished = False

    def _event(self, line: bytes) -> list[Event]:
        try:
            return [EVENTS.validate_json(line)]
        except ValidationError as e:
            log.warning(
                "%s: passed over a line before byte %d: %s", self.path, self.offset, first_words(e.errors())
            )
            return []

"""Reads a job's `events.jsonl` from where it was left: whole lines at a time, and a bounded piece of it at once."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from carbonsched.model.files import open_plain
from carbonsched.model.protocol import EVENTS, Event

log = logging.getLogger(__name__)

PIECE_BYTES = 1024 * 1024
"""Read at once, and the longest line that is an event: `segment_done` names every selected tensor, some 60 bytes each."""


@dataclass(slots=True)
class EventFollower:
    """Follows one file that the trainer appends to.

    Example:
        >>> EventFollower(Path("events.jsonl")).read()  # not written yet
        []
    """

    path: Path
    offset: int = 0
    """Bytes read; always at the start of a line, or inside one that is passed over."""
    behind: bool = False
    """Whether whole lines were left for the next call."""
    _passing: bool = False
    """Whether `offset` is inside a line that is too long."""
    _vanished: bool = False
    """Whether there was no file at the last look."""

    def read(self, until: int | None = None) -> list[Event]:
        """New events of one piece, up to byte `until`. A torn last line stays for the next call.

        A line that is not an event of ours (another program speaks the protocol loosely) or is longer than a piece is
        logged and passed over: one bad line must not stop the metering of a job, nor fill the daemon's memory.
        Raises OSError where the file cannot be read.
        """
        self.behind = False  # also where it cannot be read: nobody is to wait for more then
        most = PIECE_BYTES if until is None else min(max(until - self.offset, 0), PIECE_BYTES)
        try:
            with open_plain(self.path) as file:
                self._notice_cut(os.fstat(file.fileno()).st_size)
                file.seek(self.offset)
                data = file.read(most)
        except FileNotFoundError:
            self._vanished, data = True, b""
        whole = data[: data.rfind(b"\n") + 1]
        self.behind = len(data) == PIECE_BYTES
        if not whole and self.behind:
            if not self._passing:
                log.warning(
                    "%s: passed over a line of more than %d bytes from byte %d",
                    self.path,
                    PIECE_BYTES,
                    self.offset,
                )
            self._passing, self.offset = True, self.offset + len(data)
            return []
        found: list[Event] = []
        # by newlines alone: splitlines() would also cut at a lone carriage return, which a progress bar may write
        for line in whole.split(b"\n")[:-1]:
            self.offset += len(line) + 1
            if self._passing:
                self._passing = False
            elif line.strip():
                found += self._event(line)
        return found

    def replay(self, until: int) -> Iterator[Event]:
        """All events up to byte `until`, a piece in memory at a time."""
        while self.offset < until:
            before = self.offset
            yield from self.read(until)
            if self.offset == before:
                return

    def _notice_cut(self, size: int) -> None:
        """A file that became shorter is followed from its new end on, one that was made anew from its beginning."""
        if size < self.offset:
            log.warning("%s: was cut from %d bytes or more to %d", self.path, self.offset, size)
            self.offset, self._passing = 0 if self._vanished else size, False
        self._vanished = False

    def _event(self, line: bytes) -> list[Event]:
        try:
            return [EVENTS.validate_json(line)]
        except ValidationError as e:
            log.warning(
                "%s: passed over a line before byte %d: %s", self.path, self.offset, e.errors()[0]["msg"]
            )
            return []

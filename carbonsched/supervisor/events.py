"""Reading a job's `events.jsonl` from where it was left, one whole line at a time."""

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from carbonsched.model.protocol import EVENTS, Event

log = logging.getLogger(__name__)


@dataclass(slots=True)
class EventFollower:
    path: Path
    offset: int = 0
    """Bytes read; always at the start of a line."""

    def read(self, until: int | None = None) -> list[Event]:
        """New events, up to byte `until`. A torn last line stays for the next call.

        A line that is not an event of ours (another program speaks the protocol loosely) is logged and passed over:
        one bad line must not stop the metering of a job.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(-1 if until is None else max(until - self.offset, 0))
        except FileNotFoundError:
            return []
        found: list[Event] = []
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break
            self.offset += len(line)
            if not line.strip():
                continue
            try:
                found.append(EVENTS.validate_json(line))
            except ValidationError as e:
                log.warning(
                    "%s: passed over a line before byte %d: %s", self.path, self.offset, e.errors()[0]["msg"]
                )
        return found

"""Tracks how far a verification has come, and stores it in a file, so that an interrupted one can resume.

The file names the last verified row with its hash, which must still be in the ledger, and carries a digest of itself. A file that is
damaged, of another ledger, or older than a roll-up is ignored. Rows before it are not verified again; to distrust them, verify without the
file.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select

from carbonsched.errors import InputError
from carbonsched.ledger.chains import Walk
from carbonsched.ledger.rollup import rolled_to
from carbonsched.ledger.tables import HOURS, INTERVALS

FIELD: Final = "--checkpoint"
EVERY_S: Final = 5.0
ReportProgress = Callable[[str, int], None]
"""Called with a part (rows, archive, hours) and how many were done since the last call; at first with those done earlier."""
_COST: Final = {"rows": 1.0, "archive": 0.4, "hours": 0.5}
"""Relative cost of verifying a row, of reading it from the archive, and of summing it again for its hour."""


@dataclass(slots=True)
class Done:
    """How much of a verification is done, and of how much.

    Example:
        >>> done = Done(rows=300, hours=2)
        >>> done.add("rows", 150)
        >>> round(done.share, 3), done.part
        (0.333, 'rows')
    """

    rows: int
    hours: int
    archive: int = 0
    """Rows of the archive that were recomputed."""
    part: str = "rows"
    _sum: float = 0.0

    def add(self, part: str, count: int) -> None:
        """Add so many to a part."""
        self.part = part
        self._sum += count * (
            _COST[part] if part != "hours" else _COST[part] * self.rows / max(self.hours, 1)
        )

    @property
    def share(self) -> float:
        whole = self.rows * _COST["rows"] + self.archive * _COST["archive"]
        whole += self.rows * _COST["hours"] if self.hours else 0.0
        return min(self._sum / whole, 1.0) if whole else 1.0


@dataclass(slots=True)
class Checkpoint:
    """The state of a verification.

    Example::

        steps = Checkpoint(Path("verify.json"))
        result = ledger.verify(steps=steps)
    """

    path: Path | None = None
    """None: nothing is stored."""
    report: ReportProgress = lambda _part, _count: None
    every_s: float = EVERY_S
    walk: Walk | None = None
    """Where the walk over rows resumes; None: at the first row."""
    hour_us: int = 0
    """Hour sums up to this hour were compared with the rows."""
    archive: dict[str, Any] | None = None
    """Where the archive's walk resumes (`carbonsched.ledger.archive_audit`); None: at its first row."""
    through: int = 0
    _kept_s: float = field(default_factory=time.monotonic)

    def read(self, connection: Connection) -> None:
        """Restore from the file if it is of this ledger. Raises InputError if it cannot be read."""
        self.through = rolled_to(connection, 0)[0]
        if self.path is None or not self.path.exists():
            return
        try:
            text = self.path.read_text(encoding="utf-8")
            if not text:  # an empty file, as `mktemp` makes it
                return
            said = _of_ours(text)
            if said is None:  # it would be overwritten, and deleted in the end
                raise InputError(
                    FIELD, f"{self.path} is no checkpoint of a verification", "give another file"
                )
            state = said["state"]
            if said["sha256"] != _digest(state) or state["through"] != self.through:
                return
            walk = Walk.of(state["walk"])
            archive = state.get("archive")  # checkpoints of older versions have none
            if archive is not None and not isinstance(archive, dict):
                return
        except OSError as e:
            raise InputError(FIELD, f"{self.path} cannot be read: {e.strerror}", "give another file") from e
        except UnicodeDecodeError as e:
            raise InputError(
                FIELD, f"{self.path} is no checkpoint of a verification", "give another file"
            ) from e
        except (IndexError, KeyError, TypeError, ValueError):
            return
        (number, digest), t, h = walk.after, INTERVALS.c, HOURS.c
        if connection.execute(select(t.hash).where(t.id == number)).scalar() != digest:
            return
        self.walk, self.hour_us, self.archive = walk, state["hour_us"], archive
        rows = select(func.count()).select_from(INTERVALS).where(t.id <= number)
        hours = select(func.count()).select_from(HOURS).where(h.hour_us <= self.hour_us)
        self.report("rows", int(connection.execute(rows).scalar_one()))
        self.report("hours", int(connection.execute(hours).scalar_one()))

    def came(
        self,
        part: str,
        count: int,
        walk: Walk | None = None,
        hour_us: int | None = None,
        archive: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        """Store the progress. Raises InputError if the file cannot be written."""
        self.report(part, count)
        self.walk = walk or self.walk
        self.hour_us = self.hour_us if hour_us is None else hour_us
        now = time.monotonic()
        if self.path is not None and self.walk is not None and now - self._kept_s >= self.every_s:
            self.archive = self.archive if archive is None else archive()
            self._kept_s = now
            self._write(self.path, self.walk)

    def done(self) -> None:
        """The verification is complete: the next one starts at the beginning."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()

    def _write(self, path: Path, walk: Walk) -> None:
        state = {
            "walk": walk.state(),
            "hour_us": self.hour_us,
            "archive": self.archive,
            "through": self.through,
        }
        part = path.with_name(path.name + ".part")
        try:
            with part.open("w", encoding="utf-8") as file:
                json.dump({"state": state, "sha256": _digest(state)}, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as e:
            raise InputError(FIELD, f"{path} cannot be written: {e.strerror}", "give another file") from e


def _of_ours(text: str) -> dict[str, Any] | None:
    """The document of a checkpoint, damaged or not; None: the file is something else."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.keys() <= {"state", "sha256"} else None


def _digest(state: Any) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

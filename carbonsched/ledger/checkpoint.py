"""Tells how far a verification came, and keeps it in a file, so that one that was ended goes on from there.

The file names the row that was reached with its hash, which must be in the ledger still, and bears a digest of its own; of another ledger, or
damaged, or of a ledger that was rolled up since, it counts as none. Rows before that row are not looked at once more: who doubts them verifies without it.
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
Tell = Callable[[str, int], None]
"""Of which part (rows, archive, hours), how many since it told last; first of all how many were done before."""
_COST: Final = {"rows": 1.0, "archive": 0.4, "hours": 0.5}
"""What a row takes, as it is verified, read from the archive, and added up once more for its hour."""


@dataclass(slots=True)
class Done:
    """How much of a verification is done, of all that it will take.

    Example:
        >>> done = Done(rows=300, hours=2)
        >>> done.tell("rows", 150)
        >>> round(done.share, 3), done.part
        (0.333, 'rows')
    """

    rows: int
    hours: int
    archive: int = 0
    """Rows of the archive that are recomputed."""
    part: str = "rows"
    _sum: float = 0.0

    def tell(self, part: str, count: int) -> None:
        """So many more."""
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
    """How far it came.

    Example::

        steps = Checkpoint(Path("verify.json"))
        result = ledger.verify(steps=steps)
    """

    path: Path | None = None
    """None: nothing is kept."""
    tell: Tell = lambda _part, _count: None
    every_s: float = EVERY_S
    walk: Walk | None = None
    """From where the rows go on; None: from the first."""
    hour_us: int = 0
    """Totals of hours up to this one were held against the rows."""
    archive: dict[str, Any] | None = None
    """From where the archive goes on, as `carbonsched.ledger.archive_audit` has it; None: from its first row."""
    through: int = 0
    _kept_s: float = field(default_factory=time.monotonic)

    def read(self, connection: Connection) -> None:
        """Go on from the file, where it is of this ledger. Raises InputError where it cannot be read."""
        self.through = rolled_to(connection, 0)[0]
        if self.path is None or not self.path.exists():
            return
        try:
            text = self.path.read_text(encoding="utf-8")
            if not text:  # as `mktemp` makes it
                return
            said = _of_ours(text)
            if said is None:  # it would be written over, and removed in the end
                raise InputError(
                    FIELD, f"{self.path} is no checkpoint of a verification", "give another file"
                )
            state = said["state"]
            if said["sha256"] != _digest(state) or state["through"] != self.through:
                return
            walk = Walk.of(state["walk"])
            archive = state.get("archive")  # those of an earlier carbonsched have none
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
        self.tell("rows", int(connection.execute(rows).scalar_one()))
        self.tell("hours", int(connection.execute(hours).scalar_one()))

    def came(
        self,
        part: str,
        count: int,
        walk: Walk | None = None,
        hour_us: int | None = None,
        archive: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        """So much further. Raises InputError where the file cannot be written."""
        self.tell(part, count)
        self.walk = walk or self.walk
        self.hour_us = self.hour_us if hour_us is None else hour_us
        now = time.monotonic()
        if self.path is not None and self.walk is not None and now - self._kept_s >= self.every_s:
            self.archive = self.archive if archive is None else archive()
            self._kept_s = now
            self._write(self.path, self.walk)

    def done(self) -> None:
        """It came to its end: the next one begins anew."""
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

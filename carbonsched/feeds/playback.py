"""Plays recorded rows back on wall time, as fast as wanted, whatever they are of: for demonstrations and tests.

Grid time = the first row's time + phase + (wall − anchor) × compression, over and over: the last row is followed by the first
as any row by its next. Values are in wall time and carry the recording's own time and the compression, so that nobody takes
them for the present. The past is as complete as a real provider's archive; the next rows are handed out ahead of their time
so that no gap opens between polls (the chain shows none before it begins). All replays of a box share one anchor.
"""

import bisect
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Generic

from pydantic import Field, ValidationError, model_validator

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.feeds.base import Make, Site, SourceSettings, V, Values
from carbonsched.feeds.columns import Columns
from carbonsched.model import files
from carbonsched.model.base import Doc, LocalPath, UtcTime, refusal
from carbonsched.model.grid import Kind, Source

log = logging.getLogger(__name__)

_BACK_GRID_S: Final = 168 * 3600.0
_BACK_WALL_S: Final = 3600.0
_AHEAD_WALL_S: Final = 5.0
MAX_ROWS: Final = 2000


class PlaybackKeys(SourceSettings):
    """Keys of every source that plays back a file.

    Example::

        class ReplayPriceSettings(PlaybackKeys):
            COLUMNS = "datetime,eur_per_kwh"
            provider: Literal["replay"]
    """

    COLUMNS: ClassVar[str] = "datetime and a value"
    """The file's header, for people."""

    file: LocalPath
    """The recording, CSV; relative to the config file."""
    hour_s: Annotated[float, Field(gt=0)] = 3600.0
    """Wall seconds one grid hour of the recording takes; 3600 is real time."""
    phase_h: float = 0.0
    """Hours into the recording at which the replay begins."""
    anchor: UtcTime | None = None
    """Wall time of the replay's begin; None: the daemon's first start, kept in the state directory."""
    label: str = ""
    """Shown wherever a value of this feed is, e.g. `synthetic`."""

    @model_validator(mode="before")
    @classmethod
    def _require_file(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("file") is None:
            raise refusal("file", "is missing", f"give a CSV of {cls.COLUMNS}")
        return data


class Playback:
    """When each row of a recording holds, on wall time; rows are counted over all its loops, 0 is the first of the one with the anchor.

    Example::

        playback = Playback(columns.times, settings, site)
        start = playback.wall(playback.index(clock.now()))
    """

    def __init__(self, times: Sequence[datetime], settings: PlaybackKeys, site: Site) -> None:
        """The recording is at its start + `phase_h` when the wall clock is at `settings.anchor`."""
        self._anchor = settings.anchor or _kept_anchor(site.state_dir, site.clock)
        self._phase_s = settings.phase_h * 3600
        self.compression = 3600 / settings.hour_s
        """Grid seconds per wall second."""
        self.every_s = min(settings.every, settings.hour_s / 4)
        self._starts = [(at - times[0]).total_seconds() for at in times]
        self._span_s = self._starts[-1] + (self._starts[-1] - self._starts[-2])
        self._emitted: int | None = None
        """The last row that was returned."""

    def due(self, now: datetime) -> range:
        """The rows to return at a poll: those since the last one (at first a week of the grid's past), and the next ones."""
        current = self.index(now)
        back = max(_BACK_GRID_S, _BACK_WALL_S * self.compression)
        if self._emitted is None or self._emitted < current - MAX_ROWS:
            first = max(self.index(now - timedelta(seconds=back / self.compression)), current - MAX_ROWS)
        else:
            first = min(self._emitted, current)
        last = max(current + 1, min(self.index(now + timedelta(seconds=_AHEAD_WALL_S)), current + MAX_ROWS))
        self._emitted = current
        return range(first, last + 1)

    def row(self, index: int) -> int:
        """The row of the recording that this is."""
        return index % len(self._starts)

    def index(self, at: datetime) -> int:
        """The row that holds at a wall time."""
        grid_s = self._phase_s + (at - self._anchor).total_seconds() * self.compression
        loops, into = divmod(grid_s, self._span_s)
        return int(loops) * len(self._starts) + bisect.bisect_right(self._starts, into) - 1

    def wall(self, index: int) -> datetime:
        """When row `index` begins, to the millisecond: as precise as documents are."""
        loops, row = divmod(index, len(self._starts))
        grid_s = loops * self._span_s + self._starts[row]
        offset_ms = round((grid_s - self._phase_s) / self.compression * 1000)
        return self._anchor + timedelta(milliseconds=offset_ms)


class Replay(Generic[V]):
    """Returns one column of a recording as if a provider reported it now.

    Example::

        columns = read_columns(Path(settings.file), [("eur_per_kwh",)], number("EUR per kWh", least=None))
        prices = Replay(columns, settings, site, Price.of)
        readings = prices.poll().readings
    """

    local = True

    def __init__(self, columns: Columns, settings: PlaybackKeys, site: Site, make: Make[V]) -> None:
        self.name, self.zone, self.max_age_s = settings.shown_name, site.zone.name, settings.max_age
        self._playback = Playback(columns.times, settings, site)
        self.every_s = self._playback.every_s
        self._columns, self._values, self._make = columns, columns.column(0), make
        self._label, self._clock = settings.label, site.clock

    def poll(self) -> Values[V]:
        now = self._clock.now()
        return Values(tuple(self._reading(i, now) for i in self._playback.due(now)))

    def _reading(self, index: int, now: datetime) -> V:
        play, row = self._playback, self._playback.row(index)
        source = Source(
            provider=self.name,
            zone=self.zone,
            kind=Kind.ACTUAL,
            fetched_at=now,
            body_sha256=self._columns.sha256[row],
            time_compression=play.compression,
            note=self._label,
        )
        start, end = play.wall(index), play.wall(index + 1)
        return self._make(start, end, self._values[row], source, self._columns.times[row])


class _Anchor(Doc):
    anchor: UtcTime


def _kept_anchor(state_dir: Path, clock: Clock) -> datetime:
    """When a replay began: at this daemon's first start, so that a restarted one continues in the same phase."""
    path = state_dir / "replay-anchor.json"
    try:
        return _Anchor.model_validate_json(path.read_bytes()).anchor
    except FileNotFoundError:
        pass
    except (OSError, ValidationError) as e:
        raise InputError(str(path), "cannot be read", "remove it: the replay then begins anew") from e
    anchor = _Anchor(anchor=clock.now())
    log.info("the replay begins now, as there is no %s", path)
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        files.save(path, anchor)
    except OSError as e:  # a full disk
        log.warning("%s cannot be written, the replay begins anew at the next start: %s", path, e.strerror)
    # as it is read: a document keeps milliseconds, and a restarted daemon must not be a fraction of one apart
    return _Anchor.model_validate_json(anchor.model_dump_json()).anchor

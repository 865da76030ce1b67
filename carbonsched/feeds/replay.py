"""Plays a recorded trace back on wall time, as fast as wanted: for demonstrations and tests. It uses no network.

Grid time = trace start + phase + (wall − anchor) × compression, over and over: the last row is followed by the first as
any row by its next. Readings are in wall time and carry the trace's own time and the compression, so that nobody takes
them for the present. The past is as complete as a real provider's archive; the next rows are handed out ahead of their
time so that no gap opens between polls (the chain shows none before it begins).
"""

import bisect
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.feeds.base import Answer, FeedSettings, Site
from carbonsched.feeds.trace import Trace, read_trace
from carbonsched.model import files
from carbonsched.model.base import Doc, LocalPath, UtcTime, refusal
from carbonsched.model.grid import Forecast, ForecastPoint, Kind, Reading, Source

log = logging.getLogger(__name__)

_BACK_GRID_S: Final = 168 * 3600.0
_BACK_WALL_S: Final = 3600.0
_AHEAD_WALL_S: Final = 5.0
_AHEAD_GRID_S: Final = 48 * 3600.0
_MAX_ROWS: Final = 2000


class ReplaySettings(FeedSettings):
    """Keys of `[[feeds]]` with provider = "replay".

    Example:
        >>> ReplaySettings(provider="replay", file="grid-week.csv", hour_s=4.0).phase_h
        0.0
    """

    provider: Literal["replay"]
    file: LocalPath
    """Trace CSV: datetime,g_per_kwh[,forecast_g_per_kwh], or an export; relative to the config file."""
    zone: str | None = None
    """Whose values of an export that tells of several areas; None: the config's zone."""
    hour_s: Annotated[float, Field(gt=0)] = 3600.0
    """Wall seconds one grid hour of the trace takes; 3600 is real time."""
    phase_h: float = 0.0
    """Hours into the trace at which the replay begins."""
    anchor: UtcTime | None = None
    """Wall time of the replay's begin; None: the daemon's first start, kept in the state directory."""
    label: str = ""
    """Shown wherever a value of this feed is, e.g. `synthetic`."""

    @model_validator(mode="before")
    @classmethod
    def _require_file(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("file") is None:
            raise refusal("file", "is missing", "give a CSV of datetime,g_per_kwh")
        return data

    def build(self, site: Site) -> "ReplayFeed":
        """Reads the trace. Raises InputError with the file, the line and a hint."""
        zone, basis = self.zone or site.zone.name, self.basis or site.zone.basis
        return ReplayFeed(read_trace(self.file, zone, basis), self, site)


class ReplayFeed:
    """Answers the rows of a trace as if they came from a provider now.

    Example::

        feed = ReplayFeed(read_trace("grid-week.csv"), settings, site)
        readings = feed.poll().readings
    """

    local = True

    def __init__(self, trace: Trace, settings: ReplaySettings, site: Site) -> None:
        """The trace stands at its start + `phase_h` when the wall clock is at `settings.anchor`."""
        self.name, self.zone, self.max_age_s = settings.shown_name, site.zone.name, settings.max_age
        self.basis = settings.basis or site.zone.basis
        self.every_s = min(settings.every, settings.hour_s / 4)
        self._trace, self._clock = trace, site.clock
        self._anchor = settings.anchor or _kept_anchor(site.state_dir, site.clock)
        self._label = "; ".join(part for part in (settings.label, trace.note) if part)
        self._kind = Kind.ESTIMATED if trace.note else Kind.ACTUAL
        self._phase_s = settings.phase_h * 3600
        self._compression = 3600 / settings.hour_s
        start = trace.times[0]
        self._starts = [(at - start).total_seconds() for at in trace.times]
        self._emitted: int | None = None
        """The last row given out, counted from the first row of the loop in which the anchor lies."""

    def poll(self) -> Answer:
        now = self._clock.now()
        current = self._index(now)
        back = max(_BACK_GRID_S, _BACK_WALL_S * self._compression)
        if self._emitted is None or self._emitted < current - _MAX_ROWS:
            first = max(self._index(now - timedelta(seconds=back / self._compression)), current - _MAX_ROWS)
        else:
            first = min(self._emitted, current)
        last = max(current + 1, min(self._index(now + timedelta(seconds=_AHEAD_WALL_S)), current + _MAX_ROWS))
        readings = tuple(self._reading(i, now) for i in range(first, last + 1))
        self._emitted = current
        return Answer(readings, self._forecast(current, now))

    def _grid_s(self, at: datetime) -> float:
        """Grid seconds since the first row of the loop in which the anchor lies."""
        return self._phase_s + (at - self._anchor).total_seconds() * self._compression

    def _index(self, at: datetime) -> int:
        loops, into = divmod(self._grid_s(at), self._trace.span_s)
        return int(loops) * len(self._starts) + bisect.bisect_right(self._starts, into) - 1

    def _wall(self, index: int) -> datetime:
        """When row `index` begins, to the millisecond: as precise as documents are."""
        loops, row = divmod(index, len(self._starts))
        grid_s = loops * self._trace.span_s + self._starts[row]
        offset_ms = round((grid_s - self._phase_s) / self._compression * 1000)
        return self._anchor + timedelta(milliseconds=offset_ms)

    def _source(self, kind: Kind, now: datetime, issued: datetime | None, sha256: str | None) -> Source:
        return Source(
            provider=self.name,
            zone=self.zone,
            basis=self.basis,
            kind=kind,
            fetched_at=now,
            issued_at=issued,
            body_sha256=sha256,
            time_compression=self._compression,
            note=self._label,
        )

    def _reading(self, index: int, now: datetime) -> Reading:
        row = index % len(self._starts)
        return Reading(
            start=self._wall(index),
            end=self._wall(index + 1),
            g_per_kwh=self._trace.g_per_kwh[row],
            source=self._source(self._kind, now, None, self._trace.sha256[row]),
            grid_start=self._trace.times[row],
        )

    def _forecast(self, current: int, now: datetime) -> Forecast | None:
        """The forecast column from the next row on; it stops at the first row that has none."""
        if self._trace.forecast is None:
            return None
        end = now + timedelta(seconds=_AHEAD_GRID_S / self._compression)
        points: list[ForecastPoint] = []
        for index in range(current + 1, current + 1 + _MAX_ROWS):
            value = self._trace.forecast[index % len(self._starts)]
            start = self._wall(index)
            if value is None or start >= end:
                break
            points.append(ForecastPoint(start=start, end=self._wall(index + 1), g_per_kwh=value))
        return Forecast(
            issued_at=now, source=self._source(Kind.FORECAST, now, now, None), points=tuple(points)
        )


class _Anchor(Doc):
    anchor: UtcTime


def _kept_anchor(state_dir: Path, clock: Clock) -> datetime:
    """When a replay began: this daemon's first start, so that a restarted one goes on in the same phase."""
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

"""Plays a recorded trace of intensities back on wall time, with its forecasts. It uses no network.

How time passes is `playback`'s; here is what only intensities have: a basis, exports of providers, a forecast column.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

from carbonsched.feeds.base import Answer, FeedSettings, Site
from carbonsched.feeds.playback import MAX_ROWS, Playback, PlaybackKeys
from carbonsched.feeds.trace import COLUMNS, Trace, read_trace
from carbonsched.model.grid import Forecast, ForecastPoint, Kind, Reading, Source

_AHEAD_GRID_S: Final = 48 * 3600.0


class ReplaySettings(PlaybackKeys, FeedSettings):
    """Keys of `[[feeds]]` with provider = "replay".

    Example:
        >>> ReplaySettings(provider="replay", file="grid-week.csv", hour_s=4.0).phase_h
        0.0
    """

    COLUMNS = ",".join(COLUMNS[:2])

    provider: Literal["replay"]
    zone: str | None = None
    """Whose values of an export that tells of several areas; None: the config's zone."""

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
        self.name, self.zone, self.max_age_s = settings.shown_name, site.zone.name, settings.max_age
        self.basis = settings.basis or site.zone.basis
        self._trace, self._clock = trace, site.clock
        self._playback = Playback(trace.times, settings, site)
        self.every_s = self._playback.every_s
        self._label = "; ".join(part for part in (settings.label, trace.note) if part)
        self._kind = Kind.ESTIMATED if trace.note else Kind.ACTUAL

    def poll(self) -> Answer:
        now = self._clock.now()
        readings = tuple(self._reading(i, now) for i in self._playback.due(now))
        return Answer(readings, self._forecast(self._playback.index(now), now))

    def _source(self, kind: Kind, now: datetime, issued: datetime | None, sha256: str | None) -> Source:
        return Source(
            provider=self.name,
            zone=self.zone,
            basis=self.basis,
            kind=kind,
            fetched_at=now,
            issued_at=issued,
            body_sha256=sha256,
            time_compression=self._playback.compression,
            note=self._label,
        )

    def _reading(self, index: int, now: datetime) -> Reading:
        play, row = self._playback, self._playback.row(index)
        return Reading(
            start=play.wall(index),
            end=play.wall(index + 1),
            g_per_kwh=self._trace.g_per_kwh[row],
            source=self._source(self._kind, now, None, self._trace.sha256[row]),
            grid_start=self._trace.times[row],
        )

    def _forecast(self, current: int, now: datetime) -> Forecast | None:
        """The forecast column from the next row on; it stops at the first row that has none."""
        if self._trace.forecast is None:
            return None
        play = self._playback
        end = now + timedelta(seconds=_AHEAD_GRID_S / play.compression)
        points: list[ForecastPoint] = []
        for index in range(current + 1, current + 1 + MAX_ROWS):
            value = self._trace.forecast[play.row(index)]
            start = play.wall(index)
            if value is None or start >= end:
                break
            points.append(ForecastPoint(start=start, end=play.wall(index + 1), g_per_kwh=value))
        return Forecast(
            issued_at=now, source=self._source(Kind.FORECAST, now, now, None), points=tuple(points)
        )

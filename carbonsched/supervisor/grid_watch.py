"""Remembers the grid providers' forecasts hour by hour, also while no job runs, and notices feeds that fail and recover.

Forecast accuracy decides how far a provider is trusted. It takes four weeks to learn, so it is kept over a restart. A daemon without jobs
does this without NumPy; `carbonsched.supervisor.estimates.grid_outlook` plans with it.
"""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from carbonsched.clock import Clock
from carbonsched.feeds.chain import Chain
from carbonsched.model.grid import HELD, FeedStatus, Forecast, ForecastScore, GridView, Kind, Reading, Source
from carbonsched.plan.forecasting.archive import CAME, ProviderRecord, Series, ms
from carbonsched.plan.forecasting.combination import ByHorizon, combine, weights
from carbonsched.plan.forecasting.scores import score
from carbonsched.supervisor.feed_states import TOLD_AGAIN_S, changes
from carbonsched.supervisor.forecast_file import (
    ForecastFile,
    Records,
    forecast_line,
    forget_unheard,
    readings_line,
)

_DAY_S = 86_400.0
_LOOKS_PER_DAY = 24 * 60
"""Times a day that forecasts are read; one per hour is kept."""
_SETTLES_DAYS = 2.0
"""Days of grid time during which readings may still be revised."""
_MEMORY_DAYS = 30.0
_LEARNED_PER_DAY = 4
NO_FORECAST = "no feed forecasts: the planner makes its own from the past days; carbonsched submit JOB.toml --explain plans with it"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UsedForecast:
    """The forecast that the planner uses, and the records of how accurate it was.

    Example:
        >>> UsedForecast(None).second is None
        True
    """

    forecast: Forecast | None
    record: ProviderRecord | None = None
    second: ProviderRecord | None = None
    """The provider that it is blended with."""
    weights: ByHorizon = ()


@dataclass(slots=True)
class GridWatch:
    """The feeds, their earlier forecasts, and the readings that followed. Thread-safe.

    Example::

        watch = GridWatch(chain, clock, ForecastFile(state_dir / "forecasts.jsonl"))
        watch.poll_archive()  # at every tick
        watch.view(24.0).scores
    """

    chain: Chain
    clock: Clock
    file: ForecastFile | None = None
    """None: what is remembered ends with the daemon."""
    told: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Feed → the state that `changes` last reported, and when (monotonic)."""
    records: Records = field(default_factory=dict)
    _opened: bool = False
    _recheck_s: float = 0.0
    """Monotonic time at which forecasts are read next."""
    _settle_s: float = 0.0
    """Monotonic time at which readings are read next."""
    _scores: dict[Series, tuple[int, ForecastScore]] = field(default_factory=dict)
    """Cached scores, with the version of the record they are of."""
    _source: tuple[str, str, float] = "", "", 0.0
    """The source that `log_source` last logged; the current one, and since when (monotonic)."""
    _weights: dict[tuple[Series, Series], tuple[float, ByHorizon]] = field(default_factory=dict)
    """Cached weights of two blended forecasts, and until when they hold (monotonic)."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def day_s(self) -> float:
        """Wall seconds of a grid day; fewer in a time-compressed replay."""
        reading = self.chain.reading_at(self.clock.now())
        return _DAY_S / (reading.source.time_compression if reading else 1.0)

    def poll_archive(self) -> None:
        """Remember new forecasts and new readings. Never raises; cheap enough for every tick."""
        now_s = self.clock.monotonic()
        if now_s < self._recheck_s:
            return
        now, day_s = self.clock.now(), self.day_s()
        self._recheck_s = now_s + day_s / _LOOKS_PER_DAY
        try:
            self._remember(now, now_s, day_s)
        except Exception:  # a plugin's feed may return anything: jobs are planned and directed all the same
            log.exception("what feeds forecast and told is not remembered now")

    def _remember(self, now: datetime, now_s: float, day_s: float) -> None:
        with self._lock:
            lines, memory_days = [], _SETTLES_DAYS
            if not self._opened:
                self._opened, self._settle_s, memory_days = True, now_s, _MEMORY_DAYS
                self.records = self.file.load(ms(now)) if self.file is not None else {}
            for forecast in self.chain.forecasts():
                record = self._record(Series.of(forecast.source))
                if (kept := record.add_forecast(now, forecast)) is not None:
                    lines.append(forecast_line(record.series, kept))
            if now_s >= self._settle_s:
                lines += self._take_readings(now - timedelta(seconds=memory_days * day_s))
                self._settle_s = now_s + day_s / 24
            if self.file is not None:
                self.file.keep(lines, self.records)

    def _take_readings(self, since: datetime) -> Iterator[str]:
        now = self.clock.now()
        for readings in self.chain.readings_since(since):
            by_series: dict[Series, list[Reading]] = {}
            for reading in readings:
                if reading.source.kind in CAME:
                    by_series.setdefault(Series.of(reading.source), []).append(reading)
            for series, told in by_series.items():
                if came := self._record(series).add_readings(now, told):
                    yield readings_line(series, came)

    def _record(self, series: Series) -> ProviderRecord:
        if series not in self.records:
            self.records[series] = ProviderRecord.of(series)
            forget_unheard(self.records)
        return self.records.setdefault(series, ProviderRecord.of(series))

    def record_of(self, source: Source) -> ProviderRecord | None:
        """The current record of the series of `source`."""
        with self._lock:
            record = self.records.get(Series.of(source))
            return None if record is None else record.snapshot()

    def forecast(self) -> Forecast | None:
        """The forecast that the planner uses."""
        return self.used().forecast

    def used(self) -> UsedForecast:
        """The most trusted forecast, or two blended if the config asks for it, with the records of their accuracy."""
        forecasts = self.chain.forecasts()
        if not forecasts:
            return UsedForecast(None)
        first = forecasts[0]
        record = self.record_of(first.source)
        if self.chain.forecasts_wanted < 2 or len(forecasts) < 2 or record is None:
            return UsedForecast(first, record)
        second = forecasts[1]
        other = self.record_of(second.source)
        why = _why_not(first, second)
        if why is None and other is not None:
            by_horizon = self._weights_of(record, other)
            if any(one.second for one in by_horizon):
                blended = combine(self.clock.now(), first, second, by_horizon)
                return UsedForecast(blended, record, other, by_horizon)
            learned = any(one.learned for one in by_horizon)
            why = "it adds nothing" if learned else "too few forecasts of both have come true"
        return UsedForecast(_noted(first, second, why or "it is not known yet"), record)

    def _weights_of(self, first: ProviderRecord, second: ProviderRecord) -> ByHorizon:
        """Recomputed a few times per grid day: it takes a tenth of a second."""
        now_s, key = self.clock.monotonic(), (first.series, second.series)
        until_s, found = self._weights.get(key, (now_s, ()))
        if now_s >= until_s:
            found = weights(first, second)
            self._weights[key] = now_s + first.forecasts.day_s / _LEARNED_PER_DAY, found
        return found

    def scores(self) -> tuple[ForecastScore, ...]:
        """How accurate the feeds' forecasts were, in order of trust."""
        names = [status.name for status in self.chain.status()]
        with self._lock:
            records = [
                record.snapshot()
                for series, record in self.records.items()
                if series.provider in names and record.forecasts.rows
            ]
        records.sort(key=lambda record: names.index(record.series.provider))
        return tuple(map(self._score, records))

    def _score(self, record: ProviderRecord) -> ForecastScore:
        """Takes a tenth of a second for a provider with four weeks of record; cached until the record changes."""
        known = self._scores.get(record.series)
        if known is None or known[0] != record.version:
            known = self._scores[record.series] = record.version, score(record)
        return known[1]

    def view(self, hours: float) -> GridView:
        """What `carbonsched grid` shows: now, the forecast for `hours`, how right forecasts were, and the feeds."""
        view, forecast = self.chain.view(hours), self.forecast()
        if not hours:
            return view
        until = self.clock.now() + timedelta(hours=hours)
        points = tuple(p for p in forecast.points if p.start < until) if forecast else ()
        return view.model_copy(
            update={
                "forecast": points,
                "forecast_source": forecast.source if forecast else None,
                "forecast_reason": None if points else NO_FORECAST,
                "scores": self.scores(),
            }
        )

    def changes(self) -> Iterator[FeedStatus]:
        """Feeds whose state differs from the one last reported; each change is reported once."""
        return changes(self.chain.status(), self.told, self.clock.monotonic())

    def log_source(self) -> None:
        """Log the source of the intensity (a feed, a held value, a constant, or none) once it has differed from the logged one for a minute."""
        reading, now_s = self.chain.reading_at(self.clock.now()), self.clock.monotonic()
        source, (said, last, since_s) = _source_of(reading), self._source
        if source != last:
            last, since_s = source, now_s
        if last != said and (now_s - since_s >= TOLD_AGAIN_S if said else reading is not None):
            said = last
            well = reading is not None and reading.source.kind is not Kind.FALLBACK
            log.log(logging.INFO if well else logging.WARNING, "the intensity is %s", said)
        self._source = said, last, since_s


def _source_of(reading: Reading | None) -> str:
    if reading is None:
        return "not known: no feed has a value that is young enough"
    name, kind = reading.source.provider, reading.source.kind
    if kind is Kind.FALLBACK:
        return f"a constant of {name}: no feed before it has a value that is young enough"
    if kind is Kind.STATIC:
        return f"a constant of {name}, as the configuration states"
    held = reading.source.note.endswith(HELD)
    return f"the last value of {name}, held: there is no newer one" if held else f"what {name} says"


def _why_not(first: Forecast, second: Forecast) -> str | None:
    """Why two forecasts are not comparable: zone (if both name one), basis or time differ."""
    a, b = first.source, second.source
    if a.basis is not b.basis:
        return f"it is {b.basis}"
    if a.time_compression != b.time_compression:
        return "it is replayed at another speed"
    one, two = ("".join(filter(str.isalnum, source.zone)).upper() for source in (a, b))
    # some providers put the country before the zone: DK-DK1 and DK1
    return None if one.endswith(two) or two.endswith(one) else f"it is of {b.zone}"


def _noted(first: Forecast, second: Forecast, why: str) -> Forecast:
    note = f"not blended with {second.source.provider}: {why}"
    text = "; ".join(part for part in (first.source.note, note) if part)
    return first.model_copy(update={"source": first.source.model_copy(update={"note": text})})

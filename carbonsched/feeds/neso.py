"""Polls the Carbon Intensity API of Great Britain's National Energy System Operator: no key, CC BY 4.0.

Half-hour average intensity with direct (combustion) factors, nationally or for one of 17 regions, and a 48 h forecast.
`actual` is an estimate from metered generation; it is null until settled and regions never have it: such a reading is
of kind `forecast`. Times come without seconds. https://carbonintensity.org.uk
"""

import logging
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, FeedSettings, Site
from carbonsched.feeds.transport import Body, RetryLaterError
from carbonsched.model.base import Seconds, utc
from carbonsched.model.grid import Basis, Forecast, ForecastPoint, Kind, Reading, Source

URL: Final = "https://api.carbonintensity.org.uk"
_PAST: Final = timedelta(hours=24)
_PAST_EVERY_S: Final = 3600.0
_AHEAD: Final = timedelta(hours=1)
"""The forecast of the half hour that runs and of so much after it stands in as readings: it holds over a poll that fails."""

log = logging.getLogger(__name__)


_Time = Annotated[datetime, AfterValidator(utc)]


class _Intensity(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)
    forecast: float | None = None
    actual: float | None = None


class _Row(BaseModel):
    start: _Time = Field(alias="from")
    end: _Time = Field(alias="to")
    intensity: _Intensity


class _Rows(BaseModel):
    data: list[_Row]


class NesoSettings(FeedSettings):
    """Keys of `[[feeds]]` with provider = "neso".

    Example:
        >>> NesoSettings(provider="neso", region=13).every
        300.0
    """

    provider: Literal["neso"]
    url: str | None = None
    """Base URL, for a mirror or a test server; None: the provider's own."""
    timeout: Seconds = 10.0
    """How long one request may take."""
    region: Annotated[int, Field(ge=1, le=17)] | None = None
    """NESO region id; None: Great Britain."""

    def build(self, site: Site) -> "NesoFeed":
        return NesoFeed(self, site)


class NesoFeed:
    """Polls the Carbon Intensity API.

    Example::

        answer = NesoFeed(NesoSettings(provider="neso"), site).poll()
    """

    basis = Basis.AVERAGE_DIRECT
    local = False

    def __init__(self, settings: NesoSettings, site: Site) -> None:
        self.name, self.every_s, self.max_age_s = settings.shown_name, settings.every, settings.max_age
        self._region = settings.region
        self.zone = site.zone.name if self._region is None else f"{site.zone.name}/{self._region}"
        self._transport, self._clock, self._timeout_s = site.transport, site.clock, settings.timeout
        self._url = (settings.url or URL).rstrip("/")
        self._past_due_s = 0.0

    def poll(self) -> Answer:
        """One to three requests: now, the forecast, and once an hour the day that has passed.

        What the forecast says of the half hour that runs stands in where the first does not tell it: it may answer the last
        complete one, or nothing.
        """
        now = self._clock.now()
        present, failure = self._present(now)
        forecast, near = self._forecast(now)
        if not present and not any(reading.start <= now for reading in near):
            raise failure or FeedError(f"{self._url}: the answer holds no value for the current half hour")
        if failure is not None:
            log.warning("feed %s: the forecast stands in for the current half hour: %s", self.name, failure)
        by_start = {reading.start: reading for reading in (*self._past(now), *near, *present)}
        return Answer(tuple(by_start[start] for start in sorted(by_start)), forecast)

    def _present(self, now: datetime) -> tuple[list[Reading], FeedError | None]:
        """What the provider says of now, and why it cannot be read, where it cannot. Raises RetryLaterError."""
        try:
            return self._readings(self._get("now", now), now), None
        except RetryLaterError:
            raise
        except FeedError as e:
            return [], e

    def _past(self, now: datetime) -> list[Reading]:
        if self._clock.monotonic() < self._past_due_s:
            return []
        try:
            found = self._readings(self._get("past", now), now)
        except FeedError as e:
            log.warning("feed %s: the past day is not known: %s", self.name, e)
            return []
        self._past_due_s = self._clock.monotonic() + _PAST_EVERY_S
        return [reading for reading in found if reading.end <= now]

    def _forecast(self, now: datetime) -> tuple[Forecast | None, list[Reading]]:
        """The forecast, and what of it stands in as readings."""
        try:
            body = self._get("fw48h", now)
            rows = self._rows(body)
        except FeedError as e:
            log.warning("feed %s: no forecast: %s", self.name, e)
            return None, []
        points = tuple(
            ForecastPoint(start=row.start, end=row.end, g_per_kwh=row.intensity.forecast)
            for row in rows
            if row.intensity.forecast is not None and row.end > now
        )
        near = [
            self._reading(point.start, point.end, point.g_per_kwh, Kind.FORECAST, now, body.sha256)
            for point in points
            if point.start <= now + _AHEAD
        ]
        source = self._source(Kind.FORECAST, now, body.sha256)
        return (Forecast(issued_at=now, source=source, points=points) if points else None), near

    def _get(self, what: str, now: datetime) -> Body:
        since = f"{(now - _PAST):%Y-%m-%dT%H:%MZ}"
        at = f"{now:%Y-%m-%dT%H:%MZ}"
        if self._region is None:
            path = {
                "now": "/intensity",
                "fw48h": f"/intensity/{at}/fw48h",
                "past": f"/intensity/{since}/{at}",
            }[what]
        else:
            suffix = f"/regionid/{self._region}"
            path = {
                "now": f"/regional{suffix}",
                "fw48h": f"/regional/intensity/{at}/fw48h{suffix}",
                "past": f"/regional/intensity/{since}/{at}{suffix}",
            }[what]
        return self._transport.get(self._url + path, timeout_s=self._timeout_s)

    def _rows(self, body: Body) -> list[_Row]:
        data: Any = body.json.get("data") if isinstance(body.json, dict) else None
        if self._region is not None:
            # one region's rows lie a level deeper: in the only entry of a list for now, in an object for a range
            region = data[0] if isinstance(data, list) and data else data
            data = region.get("data") if isinstance(region, dict) else None
        try:
            return _Rows.model_validate({"data": data}).data
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise FeedError(
                f"{self._url}: the answer is not what NESO documents: {where}: {first['msg']}"
            ) from e

    def _readings(self, body: Body, now: datetime) -> list[Reading]:
        found = []
        for row in self._rows(body):
            actual, forecast = row.intensity.actual, row.intensity.forecast
            value, kind = (actual, Kind.ACTUAL) if actual is not None else (forecast, Kind.FORECAST)
            if value is not None and row.end > row.start:
                found.append(self._reading(row.start, row.end, value, kind, now, body.sha256))
        return found

    def _reading(
        self, start: datetime, end: datetime, value: float, kind: Kind, now: datetime, sha256: str
    ) -> Reading:
        return Reading(start=start, end=end, g_per_kwh=value, source=self._source(kind, now, sha256))

    def _source(self, kind: Kind, now: datetime, sha256: str) -> Source:
        return Source(
            provider=self.name,
            zone=self.zone,
            basis=self.basis,
            kind=kind,
            fetched_at=now,
            body_sha256=sha256,
        )

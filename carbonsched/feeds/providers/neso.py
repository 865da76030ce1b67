"""Polls the Carbon Intensity API of Great Britain's National Energy System Operator: no key, CC BY 4.0.

Half-hour average intensity with direct (combustion) factors, nationally or for one of 17 regions, and a 48 h forecast.
`actual` is an estimate from metered generation; it is null until settled and regions never have it: such a reading is
of kind `forecast`. Times come without seconds. https://carbonintensity.org.uk
"""

import logging
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.countries import check_country
from carbonsched.feeds.http_settings import HttpSettings
from carbonsched.feeds.provider import SETTLE_EVERY_S, Answered, HttpFeed, Time, Value
from carbonsched.feeds.transport import Body, RetryLaterError
from carbonsched.model.base import refusal
from carbonsched.model.grid import Basis, Kind, Reading

log = logging.getLogger(__name__)


class _Intensity(Answered):
    forecast: Value | None = None
    actual: Value | None = None


class _Row(Answered):
    start: Time = Field(alias="from")
    end: Time = Field(alias="to")
    intensity: _Intensity


class _Rows(Answered):
    data: list[_Row]


class NesoSettings(HttpSettings):
    """Keys of `[[feeds]]` with provider = "neso".

    Example:
        >>> NesoSettings(provider="neso", region=13).every
        300.0
    """

    provider: Literal["neso"]
    region: Annotated[int, Field(ge=1, le=17)] | None = None
    """NESO region id; None: Great Britain."""
    postcode: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{1,2}[0-9][0-9A-Za-z]?$")] | None = None
    """Outward postcode in place of a region, e.g. `EH8`: the region that it lies in."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.region is not None and self.postcode is not None:
            raise refusal("postcode", "is set, and so is region", "keep one of the two")
        return self

    def build(self, site: Site) -> "NesoFeed":
        """Raises InputError where the box stands in another country."""
        check_country(site.zone.name, "GB", self.provider)
        return NesoFeed(self, site)


class NesoFeed(HttpFeed):
    """Polls the Carbon Intensity API.

    Example::

        answer = NesoFeed(NesoSettings(provider="neso"), site).poll()
    """

    URL, SHOWN = "https://api.carbonintensity.org.uk", "NESO"

    def __init__(self, settings: NesoSettings, site: Site) -> None:
        part = settings.postcode.upper() if settings.postcode else settings.region
        zone = site.zone.name if part is None else f"{site.zone.name}/{part}"
        super().__init__(settings, site, zone, Basis.AVERAGE_DIRECT)
        self._place = ""
        if part is not None:
            self._place = f"/{'postcode' if settings.postcode else 'regionid'}/{part}"

    def poll(self) -> Answer:
        """One to three requests: now, the forecast, and once an hour the two days that have passed.

        What the forecast says of the half hour that runs stands in where the first does not tell it: it may answer the last
        complete one, or nothing.
        """
        now = self._clock.now()
        present, failure = self._present(now)
        forecast = self.unless_missing("forecast", lambda: self._rows(self._get("fw48h", now)))
        rows, body = forecast or ([], None)
        ahead = [
            (row.start, row.end, row.intensity.forecast)
            for row in rows
            if row.intensity.forecast is not None and row.end > row.start
        ]
        if failure is not None:
            if not ahead:
                raise failure
            log.warning("feed %s: the forecast stands in for the current half hour: %s", self.name, failure)
        past = self.once_in(SETTLE_EVERY_S, "past two days", lambda: self._readings(self._get("past", now)))
        settled = [reading for reading in past or () if reading.end <= now]
        return self.answer(
            [*settled, *present], ahead, None if body is None else self.source(Kind.FORECAST, body)
        )

    def _present(self, now: datetime) -> tuple[list[Reading], FeedError | None]:
        """What the provider says of now, and why it cannot be read, where it cannot. Raises RetryLaterError."""
        try:
            return self._readings(self._get("now", now)), None
        except RetryLaterError:
            raise
        except FeedError as e:
            return [], e

    def _get(self, what: str, now: datetime) -> Body:
        since, at = f"{(now - self.settles):%Y-%m-%dT%H:%MZ}", f"{now:%Y-%m-%dT%H:%MZ}"
        path = {"now": "", "fw48h": f"/{at}/fw48h", "past": f"/{since}/{at}"}[what]
        if not self._place:
            return self.ask(f"/intensity{path}")
        return self.ask(f"/regional{'/intensity' if path else ''}{path}{self._place}")

    def _rows(self, body: Body) -> tuple[list[_Row], Body]:
        data: Any = body.json.get("data") if isinstance(body.json, dict) else None
        if self._place:
            # one region's rows lie a level deeper: in the only entry of a list for now, in an object for a range
            region = data[0] if isinstance(data, list) and data else data
            data = region.get("data") if isinstance(region, dict) else None
        return self.parse(_Rows, {"data": data}).data, body

    def _readings(self, body: Body) -> list[Reading]:
        found: list[Reading] = []
        for row in self._rows(body)[0]:
            actual, forecast = row.intensity.actual, row.intensity.forecast
            value, kind = (actual, Kind.ACTUAL) if actual is not None else (forecast, Kind.FORECAST)
            if value is not None and row.end > row.start:
                found += self.readings([(row.start, row.end, value)], self.source(kind, body))
        return found

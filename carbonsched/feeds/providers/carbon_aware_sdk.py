"""Polls a Web API of the Green Software Foundation's Carbon Aware SDK, which someone runs in front of another provider.

`/emissions/bylocation` tells what was, `/emissions/forecasts/current` what is expected, in g/kWh
(https://carbon-aware-sdk.greensoftware.foundation/docs/tutorial-basics/carbon-aware-webapi, version 1.8). What the values mean depends
on what the API fronts: by its setting WattTime's marginal or average ones, Electricity Maps' average ones with life-cycle factors, or a
file; an answer does not tell, so the basis is unstated unless the config states it. A row carries how long it holds, which some
sources leave at zero, and the name of the source's region in place of the location's. No location has a forecast where the source
makes none (HTTP 501). Limits and terms are those of whoever runs it.
"""

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http_settings import HttpSettings
from carbonsched.feeds.provider import (
    SETTLE_EVERY_S,
    Answered,
    HttpFeed,
    Interval,
    Time,
    Value,
    intervals,
    place,
)
from carbonsched.feeds.transport import RetryLaterError
from carbonsched.model.base import refusal
from carbonsched.model.grid import Basis, Kind, Reading, Source

_STEP: Final = timedelta(hours=1)
_LONGEST: Final = timedelta(hours=1)
_LATELY: Final = timedelta(hours=3)
_NO_CONTENT: Final = 204

log = logging.getLogger(__name__)


class CarbonAwareSettings(HttpSettings):
    """Keys of `[[feeds]]` with provider = "carbon-aware-sdk".

    Example:
        >>> CarbonAwareSettings(provider="carbon-aware-sdk", url="http://10.0.0.2:8080", location="eastus").location
        'eastus'
    """

    provider: Literal["carbon-aware-sdk"]
    location: Annotated[str, Field(min_length=1)] | None = None
    """A location that the API knows, e.g. a cloud's region; None: the zone's name."""

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.url is None:
            raise refusal("url", "is missing", "give your Web API's address, like http://10.0.0.2:8080")
        return self

    def build(self, site: Site) -> "CarbonAwareFeed":
        """Raises InputError where neither a location is given nor the zone has a name."""
        return CarbonAwareFeed(self, site, place(self.location, site, "location"))


class _Observed(Answered):
    time: Time
    rating: Value


class _Observations(Answered):
    rows: list[_Observed]


class _Expected(Answered):
    timestamp: Time
    value: Value


class _Forecast(Answered):
    generated_at: Time = Field(alias="generatedAt")
    location: str
    rows: list[_Expected] = Field(alias="forecastData")


class _Forecasts(Answered):
    forecasts: Annotated[list[_Forecast], Field(min_length=1)]


class CarbonAwareFeed(HttpFeed):
    """Polls a Web API of the Carbon Aware SDK.

    Example::

        answer = CarbonAwareFeed(settings, site, "eastus").poll()
    """

    SHOWN = "the Carbon Aware SDK"
    HINTS: ClassVar[Mapping[int, str]] = {_NO_CONTENT: "it knows nothing of that location in that time"}

    def __init__(self, settings: CarbonAwareSettings, site: Site, location: str) -> None:
        super().__init__(settings, site, location, Basis.AVERAGE_UNSTATED)

    def poll(self) -> Answer:
        """Two requests: lately and the forecast; and once an hour another for the two days that have passed.

        A source that is late has nothing of lately; then the forecast alone tells of now.
        """
        lately: tuple[Reading, ...] = ()
        failure: FeedError | None = None
        try:
            lately = self._observed(_LATELY)
        except RetryLaterError:
            raise
        except FeedError as e:
            failure = e
        ahead, said = self.unless_missing("forecast", self._forecast) or ([], None)
        if failure is not None:
            if not any(start <= self._clock.now() for start, _, _ in ahead):
                raise failure
            log.info("feed %s: the forecast stands in: %s", self.name, failure)
        past = self.once_in(SETTLE_EVERY_S, "past two days", lambda: self._observed(self.settles)) or ()
        return self.answer((*past, *lately), ahead, said)

    def _observed(self, back: timedelta) -> tuple[Reading, ...]:
        now = self._clock.now()
        span = {"time": f"{now - back:%Y-%m-%dT%H:%M:%SZ}", "toTime": f"{now:%Y-%m-%dT%H:%M:%SZ}"}
        body = self.ask("/emissions/bylocation", {"location": self.zone, **span})
        rows = self.parse(_Observations, {"rows": body.json}).rows
        found = intervals(((row.time, row.rating) for row in rows), _STEP, _LONGEST)
        return self.readings(found, self.source(Kind.ACTUAL, body))

    def _forecast(self) -> tuple[list[Interval], Source]:
        body = self.ask("/emissions/forecasts/current", {"location": self.zone})
        forecast = self.parse(_Forecasts, {"forecasts": body.json}).forecasts[0]
        if forecast.location.lower() != self.zone.lower():
            raise FeedError(f"{self._url}: the forecast is of {forecast.location[:30]!r}, not of {self.zone}")
        ahead = intervals(((row.timestamp, row.value) for row in forecast.rows), _STEP, _LONGEST)
        return ahead, self.source(Kind.FORECAST, body, issued_at=forecast.generated_at)

"""Polls Electricity Maps: average intensity of what a zone uses, imports traced, with life-cycle or direct factors.

A value holds for an hour, or 15 or 5 minutes where the plan has them; values are estimated first and revised later, and each
says which it is. A token is needed. The free plan is personal, for one zone: the present and 24 h that have passed; forecasts
(up to 72 h) and longer pasts want a paid one, and commercial use a contract. No limit of requests is published; 429 is kept.
The zone is named, or found by it from coordinates (`lat`, `lon`) or a data centre (`dataCenterProvider`, `dataCenterRegion`); the first
answer names it, and another one is refused from then on. The factors are chosen by `emissionFactorType`, and the answer says which it has. A zone that it does not know would be answered
with the caller's own: this is always turned off. https://app.electricitymaps.com/docs and, for v3, https://docs.electricitymaps.com
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AliasChoices, Field, RootModel, StringConstraints, model_validator

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http_settings import TokenSettings
from carbonsched.feeds.provider import (
    SETTLE_EVERY_S,
    Answered,
    HttpFeed,
    Interval,
    Time,
    Value,
    intervals,
    offered,
    place,
)
from carbonsched.feeds.transport import Body
from carbonsched.model.base import refusal
from carbonsched.model.grid import Basis, Kind, Reading, Source

_Granularity = Literal["5_minutes", "15_minutes", "hourly"]
_STEPS: Final[Mapping[str, timedelta]] = {
    "5_minutes": timedelta(minutes=5),
    "15_minutes": timedelta(minutes=15),
    "hourly": timedelta(hours=1),
}
_FACTORS: Final = {Basis.AVERAGE_LIFECYCLE: "lifecycle", Basis.AVERAGE_DIRECT: "direct"}
_FORECAST_EVERY_S: Final = 1800.0
_CODE: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$"


class _Row(Answered):
    zone: str | None = None
    start: Time = Field(alias="datetime")
    value: Value | None = Field(alias="carbonIntensity")
    updated: Time | None = Field(None, alias="updatedAt")
    estimated: bool | None = Field(None, alias="isEstimated")
    factors: str | None = Field(None, alias="emissionFactorType")
    granularity: _Granularity = Field("hourly", alias="temporalGranularity")


class _Rows(Answered):
    zone: str
    rows: list[_Row] = Field(validation_alias=AliasChoices("data", "history", "forecast"))
    updated: Time | None = Field(None, alias="updatedAt")
    granularity: _Granularity = Field("hourly", alias="temporalGranularity")


class _Access(Answered):
    access: list[str] = []


class _Zones(RootModel[dict[str, _Access]]):
    """Zone → what the token may read of it."""


class ElectricityMapsSettings(TokenSettings):
    """Keys of `[[feeds]]` with provider = "electricity-maps".

    Example:
        >>> ElectricityMapsSettings(provider="electricity-maps", zone="DK-DK2", token_env="EM_TOKEN").version
        4
    """

    provider: Literal["electricity-maps"]
    zone: str | None = None
    """Its name of the zone; None: that of the coordinates or the data centre, else `zone.name`."""
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = None
    """In degrees, with `longitude`: it finds the zone."""
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = None
    data_center_provider: Annotated[str, StringConstraints(pattern=_CODE)] | None = None
    """Whose the data centre is, e.g. `gcp`, with `data_center_region`: it finds the zone."""
    data_center_region: Annotated[str, StringConstraints(pattern=_CODE)] | None = None
    """Like `europe-west1`."""
    version: Literal[3, 4] = 4
    """Of its API."""
    granularity: _Granularity | None = None
    """How long a value holds; None: what it answers unasked, an hour."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        said = [self.zone is not None]
        for pair in (("latitude", "longitude"), ("data_center_provider", "data_center_region")):
            given = [key for key in pair if getattr(self, key) is not None]
            if len(given) == 1:
                missing = pair[1 - pair.index(given[0])]
                raise refusal(missing, f"is missing beside {given[0]}", "give both, or zone")
            said.append(bool(given))
        if sum(said) > 1:
            raise refusal(
                "zone", "is said twice", "give zone, or coordinates, or a data centre, and drop the others"
            )
        return self

    def location(self) -> dict[str, str] | None:
        """What finds the zone, as the API calls it; None: its name is given."""
        if self.latitude is not None and self.longitude is not None:
            return {"lat": f"{self.latitude:.5f}", "lon": f"{self.longitude:.5f}"}
        if self.data_center_provider is not None and self.data_center_region is not None:
            return {
                "dataCenterProvider": self.data_center_provider,
                "dataCenterRegion": self.data_center_region,
            }
        return None

    def build(self, site: Site) -> "ElectricityMapsFeed":
        return (ElectricityMapsFeed if self.version == 4 else _VersionThree)(self, site)


class ElectricityMapsFeed(HttpFeed):
    """Polls version 4.

    Example::

        settings = ElectricityMapsSettings(provider="electricity-maps", zone="DE", token_env="EM_TOKEN")
        answer = settings.build(site).poll()
    """

    URL, SHOWN = "https://api.electricitymaps.com", "Electricity Maps"
    HINTS: ClassVar = {
        400: "check zone and granularity",
        401: "check the token; https://api.electricitymaps.com/v4/zones tells what its plan may read",
        404: "check zone: https://app.electricitymaps.com/coverage",
    }
    PATH: ClassVar[str] = "/v4/carbon-intensity"
    STAY: ClassVar[Mapping[str, str]] = {"disableCallerLookup": "true"}
    """Else an unknown zone is answered with the caller's own."""

    def __init__(self, settings: ElectricityMapsSettings, site: Site) -> None:
        basis, self._factors = offered(settings, site, _FACTORS)
        location = settings.location()
        zone = place(settings.zone, site, "zone") if location is None else "/".join(location.values())
        super().__init__(settings, site, zone, basis)
        self._token, self._found = settings.token(), location is None
        where = location or {"zone": self.zone}
        self._params = {**where, "emissionFactorType": self._factors, **self.STAY}
        if settings.granularity is not None:
            self._params["temporalGranularity"] = settings.granularity

    def poll(self) -> Answer:
        """One request; once an hour one or two more for the two days that have passed, twice an hour for the forecast."""
        now = self._clock.now()
        present = self._present()
        past = self.once_in(SETTLE_EVERY_S, "past two days", lambda: self._past(now))
        forecast = self.once_in(_FORECAST_EVERY_S, "forecast", self._ahead)
        ahead, said = forecast or ([], None)
        settled = [reading for reading in past or () if reading.end <= now]
        return self.answer([*settled, *present], ahead, said)

    def may_read(self) -> str:
        """One request: all zones, each with what the token may read of it, e.g. `carbon-intensity/latest`."""
        body = self.ask(f"{self.PATH.rpartition('/')[0]}/zones", headers={"auth-token": self._token.read()})
        zones = self.parse(_Zones, body.json).root
        open_to_it = [name for name, zone in zones.items() if zone.access]
        if not self._found:
            return f"zones in all: {len(open_to_it)}"
        here = [
            one.removeprefix("carbon-intensity/")
            for one in zones.get(self.zone, _Access()).access
            if one == "*" or one.startswith("carbon-intensity/")
        ]
        return f"{self.zone}: {', '.join(here) or 'nothing'}; zones in all: {len(open_to_it)}"

    def _present(self) -> list[Reading]:
        body = self._get("/latest")
        row = self.parse(_Row, body.json)
        return self._as_readings([row], row.zone, row.granularity, body)

    def _past(self, now: datetime) -> list[Reading]:
        since = {"start": f"{now - self.settles:%Y-%m-%dT%H:00:00Z}", "end": f"{now:%Y-%m-%dT%H:00:00Z}"}
        body = self._as_planned(("/past-range", since), ("/history", {}))
        found = self.parse(_Rows, body.json)
        return self._as_readings(found.rows, found.zone, found.granularity, body)

    def _ahead(self) -> tuple[list[Interval], Source]:
        body = self._as_planned(("/forecast", {"horizonHours": "72"}), ("/forecast", {}))
        found = self.parse(_Rows, body.json)
        return self._as_intervals(found.rows, found.zone, found.granularity), self.source(
            Kind.FORECAST, body, found.updated
        )

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> Body:
        return self.ask(
            self.PATH + path, {**self._params, **(params or {})}, {"auth-token": self._token.read()}
        )

    def _as_planned(self, *ways: tuple[str, Mapping[str, str]]) -> Body:
        return self.ask_as_planned(ways[-1][0], ways, lambda way: self._get(*way), (400, 401, 403))

    def _as_intervals(self, rows: list[_Row], zone: str | None, granularity: str) -> list[Interval]:
        for name in (zone, *(row.zone for row in rows)):
            if name is None:
                continue
            if not self._found and re.fullmatch(_CODE, name):
                # from now on it is this one: a place does not move
                self.zone, self._found = name, True
            if name != self.zone:
                raise FeedError(f"{self._url}: the answer is for zone {name!r}, not {self.zone!r}")
        for row in rows:
            if row.factors is not None and row.factors != self._factors:
                raise FeedError(f"{self._url}: the answer has {row.factors} factors, not {self._factors}")
        points = ((row.start, row.value) for row in rows if row.value is not None)
        return intervals(points, _STEPS[granularity], longest=_STEPS["hourly"])

    def _as_readings(self, rows: list[_Row], zone: str | None, granularity: str, body: Body) -> list[Reading]:
        by_start = {row.start: row for row in rows if row.value is not None}
        found: list[Reading] = []
        for one in self._as_intervals(rows, zone, granularity):
            row = by_start[one[0]]
            kind = Kind.ACTUAL if row.estimated is False else Kind.ESTIMATED
            found += self.readings([one], self.source(kind, body, row.updated))
        return found


class _VersionThree(ElectricityMapsFeed):
    UNVERIFIED = "version 3 is built from its documentation; no answer of it was seen"
    PATH = "/v3/carbon-intensity"
    STAY: ClassVar = {"shouldUseFallbackCallerLookup": "false"}

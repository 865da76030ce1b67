"""Polls WattTime's API, version 3: the emissions of the plants that answer to one more kWh (marginal), or of all (average).

`co2_moer`, marginal: 5 minutes, forecast up to 72 h; the first value of the forecast holds now, a model's estimate. It is CO2 alone,
as measured where it is generated, imports traced, so direct: https://watttime.org/data-science/data-signals/marginal-co2
`co2_aoer`, average: hours, no forecast, published up to 72 h late; of the region's own plants without imports, by yearly factors
of each fuel that the page does not call direct or life-cycle: https://watttime.org/data-science/data-signals/average-co2

An account is free and reads CAISO_NORTH; the other regions are for subscribers. 3,000 requests in 5 minutes, 100 of them logins;
a login lends a token for 30 minutes. Values come in pounds a MWh and may be revised. https://docs.watttime.org
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http_settings import LoginSettings
from carbonsched.feeds.login import LoginFeed
from carbonsched.feeds.provider import SETTLE_EVERY_S, Answered, Interval, Time, Value, intervals, place
from carbonsched.feeds.transport import AnswerError, Body, Limit
from carbonsched.model.base import refusal
from carbonsched.model.grid import Basis, Kind, Reading

_G_PER_KWH: Final = 0.45359237
"""Of a pound a MWh."""
_UNITS: Final = "lbs_co2_per_mwh"
_TOKEN_S: Final = 1500.0
"""A token lasts 1,800 s."""
_AVERAGE_LATE: Final = timedelta(hours=72)
_BASES: Final = {"co2_moer": Basis.MARGINAL_DIRECT, "co2_aoer": Basis.AVERAGE_UNSTATED}


class _Login(Answered):
    token: str


class _Point(Answered):
    start: Time = Field(alias="point_time")
    value: Value | None = None
    updated: Time | None = Field(None, alias="last_updated")
    imputed: bool | None = Field(None, alias="imputed_data_used")


class _About(Answered):
    region: str
    signal: str = Field(alias="signal_type")
    units: str
    step_s: Annotated[float, Field(ge=60, le=3600, allow_inf_nan=False)] = Field(
        300.0, alias="data_point_period_seconds"
    )
    issued: Time | None = Field(None, alias="generated_at")


class _Series(Answered):
    points: list[_Point] = Field(alias="data")
    about: _About = Field(alias="meta")


class _Endpoint(Answered):
    endpoint: str


class _Region(Answered):
    region: str
    endpoints: list[_Endpoint] = []


class _Signal(Answered):
    signal_type: str
    regions: list[_Region] = []


class _Access(Answered):
    signal_types: list[_Signal]


class WattTimeSettings(LoginSettings):
    """Keys of `[[feeds]]` with provider = "watttime".

    Example:
        >>> WattTimeSettings(provider="watttime", username="box", password_env="WT_PASSWORD", region="PJM_NJ").signal
        'co2_moer'
    """

    provider: Literal["watttime"]
    username: str
    region: str | None = None
    """Its name of the region; None: `zone.name`."""
    signal: Literal["co2_moer", "co2_aoer"] = "co2_moer"
    """Marginal or average."""

    @model_validator(mode="after")
    def _signal_fits(self) -> Self:
        kind = _BASES[self.signal].split("-")[0]
        if self.basis is not None and not self.basis.startswith(kind):
            raise refusal(
                "basis", f"{self.signal} is {kind}", f"drop it, or set it to one that begins with {kind}-"
            )
        if self.signal == "co2_aoer" and self.max_age < _AVERAGE_LATE.total_seconds():
            raise refusal(
                "max_age",
                "is too short for co2_aoer, which is published up to 72 h late",
                'set max_age = "96h" beside it',
            )
        return self

    def build(self, site: Site) -> "WattTimeFeed":
        return WattTimeFeed(self, site)


class WattTimeFeed(LoginFeed):
    """Polls WattTime.

    Example::

        settings = WattTimeSettings(provider="watttime", username="box", password_env="WT_PASSWORD", region="PJM_NJ")
        answer = settings.build(site).poll()
    """

    URL, SHOWN = "https://api.watttime.org", "WattTime"
    LIMITS = (Limit(3000, per_s=300.0),)
    LOGIN_LIMITS = (Limit(100, per_s=300.0),)
    LOGIN_HINT = "check username and password"
    HINTS: ClassVar = {
        400: "check region: https://docs.watttime.org",
        403: "the account's plan may not have this region; without a subscription it has CAISO_NORTH alone",
    }
    UNVERIFIED = "built from its documentation and the clients of others; no live answer was seen"

    def __init__(self, settings: WattTimeSettings, site: Site) -> None:
        region = place(settings.region, site, "region")
        super().__init__(settings, site, region, _BASES[settings.signal])
        self._username, self._signal = settings.username, settings.signal
        if self._signal == "co2_aoer":
            self.settles = _AVERAGE_LATE + timedelta(days=1)

    def log_in(self, password: str) -> tuple[str, float]:
        body = self.ask_login("/login", self._username, password)
        return self.parse(_Login, body.json).token, _TOKEN_S

    def expired(self, error: AnswerError) -> bool:
        # a gateway answers an old token with a page; the API itself says 403 of what the plan does not have
        return error.status == 401 or (error.status == 403 and error.page)

    def may_read(self) -> str:
        """One request: the regions that the account has the signal of."""
        known = self.parse(_Access, self.ask_logged_in("/v3/my-access", {}).json)
        regions = [
            one for each in known.signal_types if each.signal_type == self._signal for one in each.regions
        ]
        here = [end.endpoint for one in regions if one.region == self.zone for end in one.endpoints]
        return (
            f"{self._signal} of {self.zone}: {', '.join(here) or 'nothing'}; regions in all: {len(regions)}"
        )

    def poll(self) -> Answer:
        """One request, once an hour two, and a login as often as the token runs out."""
        now = self._clock.now()
        if self._signal == "co2_aoer":
            return self.answer(self._past(now, self.settles))
        body = self.ask_as_planned("forecast", ("72", "24"), self._forecast, (400, 403))
        series = self._series(body)
        ahead, said = self._as_intervals(series), self.source(Kind.FORECAST, body, series.about.issued)
        present = self.readings(
            [one for one in ahead if one[0] <= now < one[1]],
            self.source(Kind.ESTIMATED, body, series.about.issued),
        )
        past = self.once_in(SETTLE_EVERY_S, "past two days", lambda: self._past(now, self.settles))
        settled = [reading for reading in past or () if reading.end <= now]
        return self.answer([*settled, *present], ahead, said)

    def _forecast(self, hours: str) -> Body:
        asked = {"region": self.zone, "signal_type": self._signal, "horizon_hours": hours}
        return self.ask_logged_in("/v3/forecast", asked)

    def _past(self, now: datetime, reach: timedelta) -> Sequence[Reading]:
        asked = {
            "region": self.zone,
            "signal_type": self._signal,
            "start": f"{now - reach:%Y-%m-%dT%H:%M:00Z}",
            "end": f"{now:%Y-%m-%dT%H:%M:00Z}",
            "include_imputed_marker": "true",
        }
        body = self.ask_logged_in("/v3/historical", asked)
        series = self._series(body)
        by_start = {point.start: point for point in series.points if point.value is not None}
        found: list[Reading] = []
        for one in self._as_intervals(series):
            point = by_start[one[0]]
            kind = Kind.ESTIMATED if point.imputed else Kind.ACTUAL
            found += self.readings([one], self.source(kind, body, point.updated))
        return found

    def _series(self, body: Body) -> _Series:
        series = self.parse(_Series, body.json)
        about = series.about
        for what, said, wanted in (
            ("region", about.region, self.zone),
            ("signal_type", about.signal, self._signal),
            ("units", about.units, _UNITS),
        ):
            if said != wanted:
                raise FeedError(f"{self._url}: the answer is for {what} {said!r}, not {wanted!r}")
        return series

    def _as_intervals(self, series: _Series) -> list[Interval]:
        points = (
            (point.start, point.value * _G_PER_KWH) for point in series.points if point.value is not None
        )
        return intervals(points, timedelta(seconds=series.about.step_s), longest=timedelta(hours=1))

"""Polls wattnet.eu, an EU-funded service for 52 zones of Europe: 15 minutes, 4 days ahead, imports traced.

Average intensity by `scope`: `life-cycle`, or `operational`, which is direct and counts the burning of biomass, too, with
1,030 g/kWh (its factors: https://github.com/wattnet/wattnet-docs docs/methodology/impact-factors.md). Each series of an answer says
whether it is `valid`, so final (it is recalculated up to 4 h after its time), and its `zone_status`: `complete`; `preview`
(some inputs are estimated); `missing` (the value is the forecast's). An account is free and is granted on request; its login lends a
token for a day. No limit of requests is published. Times are sent without an offset, in UTC.
https://github.com/wattnet/wattnet-docs docs/user-guide/api, https://github.com/wattnet/wattnet-api wattnet/api/routers/v1/footprints.py
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import ClassVar, Final, Literal

from pydantic import Field

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http_settings import LoginSettings
from carbonsched.feeds.login import LoginFeed
from carbonsched.feeds.provider import Answered, Time, UtcTime, Value, intervals, offered, place
from carbonsched.feeds.transport import Body
from carbonsched.model.grid import Basis, Kind, Reading

_SCOPES: Final = {Basis.AVERAGE_LIFECYCLE: "life-cycle", Basis.AVERAGE_DIRECT: "operational"}
_STEP: Final = timedelta(minutes=15)
_AHEAD: Final = timedelta(days=4)
_EARLY_S: Final = 300.0
"""A token is given up so long before it runs out."""
_DAY_S: Final = 86_400.0


class _Login(Answered):
    access_token: str
    expires_at: UtcTime | None = None


class _Series(Answered):
    valid: bool | None = None
    status: str | None = Field(None, alias="zone_status")
    values: list[tuple[Time, Value | None]]

    @property
    def kind(self) -> Kind:
        """What its values of the past are."""
        if self.status == "missing":
            return Kind.FORECAST
        return Kind.ACTUAL if self.valid and self.status == "complete" else Kind.ESTIMATED

    @property
    def rank(self) -> tuple[bool, bool]:
        """Of two series that tell the same time the higher one is taken: the final one, then the one with more data."""
        return bool(self.valid), self.status != "missing"


class _Footprint(Answered):
    zone: str | None = None
    scope: str | None = None
    unit: str | None = None
    footprint_type: str | None = None
    series: list[_Series]


class _Footprints(Answered):
    found: list[_Footprint]


class WattnetSettings(LoginSettings):
    """Keys of `[[feeds]]` with provider = "wattnet".

    Example:
        >>> WattnetSettings(provider="wattnet", email="me@example.org", password_file="/etc/wattnet", zone="DK1").zone
        'DK1'
    """

    provider: Literal["wattnet"]
    email: str
    zone: str | None = None
    """Its name of the zone; None: `zone.name`."""

    def build(self, site: Site) -> "WattnetFeed":
        return WattnetFeed(self, site)


class WattnetFeed(LoginFeed):
    """Polls wattnet.

    Example::

        settings = WattnetSettings(provider="wattnet", email="me@example.org", password_file="/etc/wattnet", zone="DE")
        answer = settings.build(site).poll()
    """

    URL, SHOWN = "https://api.wattnet.eu", "wattnet"
    LOGIN_HINT = "check email and password; an account must be granted first: https://wattnet.eu/contact"
    HINTS: ClassVar = {400: "check zone: https://api.wattnet.eu/v1/docs"}

    def __init__(self, settings: WattnetSettings, site: Site) -> None:
        basis, self._scope = offered(settings, site, _SCOPES)
        super().__init__(settings, site, place(settings.zone, site, "zone").upper(), basis)
        self._email = settings.email

    def log_in(self, password: str) -> tuple[str, float]:
        body = self.post_login("/token-request/get_token", {"email": self._email, "password": password})
        login = self.parse(_Login, body.json)
        lasts_s = _DAY_S
        if login.expires_at is not None:
            lasts_s = min((login.expires_at - self._clock.now()).total_seconds(), _DAY_S)
        return login.access_token, lasts_s - _EARLY_S

    def poll(self) -> Answer:
        """One request for now and four days ahead, once an hour for the two days before, too; a login a day."""
        now = self._clock.now()
        settling = self.is_due("past two days")
        try:
            body = self._ask(now, self.settles if settling else timedelta(0))
        except FeedError:
            self.ask_soon("past two days")
            raise
        known: list[Reading] = []
        ahead = []
        for start, end, value, series in self._values(body):
            if start > now:
                ahead.append((start, end, value))
                continue
            kind = series.kind if end <= now or series.kind is not Kind.ACTUAL else Kind.ESTIMATED
            known += self.readings([(start, end, value)], self.source(kind, body))
            if end > now:
                ahead.append((start, end, value))
        return self.answer(known, ahead, self.source(Kind.FORECAST, body))

    def _ask(self, now: datetime, back: timedelta) -> Body:
        quarter = now.replace(minute=now.minute // 15 * 15, second=0, microsecond=0)
        asked = {
            "zone": self.zone,
            "footprint_type": "carbon",
            "scope": self._scope,
            "start": f"{quarter - back:%Y-%m-%dT%H:%M:%S}",
            "end": f"{quarter + _AHEAD:%Y-%m-%dT%H:%M:%S}",
        }
        return self.ask_logged_in("/v1/footprints", asked)

    def _values(self, body: Body) -> Iterator[tuple[datetime, datetime, float, _Series]]:
        """(start, end, value, the series it stands in), each time once."""
        by_start: dict[datetime, tuple[float, _Series]] = {}
        for footprint in self.parse(_Footprints, {"found": body.json}).found:
            self._check(footprint)
            for series in footprint.series:
                for start, value in series.values:
                    before = by_start.get(start)
                    if value is not None and (before is None or series.rank >= before[1].rank):
                        by_start[start] = value, series
        if not by_start:
            raise FeedError(
                f"{self._url}: no values for zone {self.zone!r}; its zones are DE, DK1, SE3, IT_NORTH and so on: "
                "https://wattnet.eu"
            )
        points = ((start, value) for start, (value, _) in by_start.items())
        for start, end, value in intervals(points, _STEP, longest=timedelta(hours=1)):
            yield start, end, value, by_start[start][1]

    def _check(self, footprint: _Footprint) -> None:
        for what, said, wanted in (
            ("zone", footprint.zone, self.zone),
            ("scope", footprint.scope, self._scope),
            ("unit", footprint.unit, "gCO2/kWh"),
            ("footprint_type", footprint.footprint_type, "carbon"),
        ):
            if said is not None and said != wanted:
                raise FeedError(f"{self._url}: the answer is for {what} {said!r}, not {wanted!r}")

"""Polls Open Electricity (before: OpenNEM) for a region of Australia: a free key, no commercial use.

Grams a kWh are what the region's plants emit in five minutes over what they generate, roofs included and what charges storage left
out, as the server itself counts a region's intensity: average, of the generation, so imports are not counted. The factors are each unit's for what generation releases, renewables at zero
(https://docs.openelectricity.org.au/guides/emissions), so they are direct. The last interval is held back until it has settled; roofs
are told each half hour and corrected later. Western Australia (WEM) is about a day late. There is no forecast.
500 requests a day and 2 a second with a free key. The shape is that of version 4 of the server's source
(https://github.com/opennem/opennem, opennem/api, and the client opennem/openelectricity-python); no answer has been seen yet, nor does
it say whether a time is the beginning of its five minutes, as is assumed here, or their end.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import ClassVar, Final, Literal

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.http_settings import TokenSettings
from carbonsched.feeds.provider import Answered, HttpFeed, Time, Value, intervals
from carbonsched.feeds.transport import Limit
from carbonsched.model.base import Duration
from carbonsched.model.grid import Basis, Kind

_STEP: Final = timedelta(minutes=5)
_LONGEST: Final = timedelta(hours=1)
_LATELY: Final = timedelta(hours=3)
_G_PER_T: Final = 1e6
_KWH_PER_MWH: Final = 1e3
_STORING: Final = ("battery_charging", "pumps")
"""Fuel technologies whose energy is taken, not given."""
Region = Literal["NSW1", "QLD1", "SA1", "TAS1", "VIC1", "WEM"]
_REGIONS: Final[dict[str, Region]] = {
    "AU-NSW": "NSW1",
    "AU-QLD": "QLD1",
    "AU-SA": "SA1",
    "AU-TAS": "TAS1",
    "AU-VIC": "VIC1",
    "AU-WA": "WEM",
    "NSW1": "NSW1",
    "QLD1": "QLD1",
    "SA1": "SA1",
    "TAS1": "TAS1",
    "VIC1": "VIC1",
    "WEM": "WEM",
}
"""What the zone may be called → the region."""


class OpenElectricitySettings(TokenSettings):
    """Keys of `[[feeds]]` with provider = "open-electricity".

    Example:
        >>> OpenElectricitySettings(provider="open-electricity", region="NSW1", token_env="OE_KEY").every
        600.0
    """

    provider: Literal["open-electricity"]
    region: Region | None = None
    """Region of the market; None: the zone's name says it, e.g. `AU-NSW`."""
    every: Duration = 600.0
    """Pause between polls."""

    def build(self, site: Site) -> "OpenElectricityFeed":
        """Raises InputError where no place of the token is given, or neither a region nor a zone called like one."""
        region = self.region or _REGIONS.get(site.zone.name)
        if region is None:
            problem = f"is missing, and the zone {site.zone.name!r} is none"
            raise InputError("region", problem, f"give one of {', '.join(dict.fromkeys(_REGIONS.values()))}")
        return OpenElectricityFeed(self, site, region)


class _Result(Answered):
    columns: dict[str, str | bool | float | None] = {}
    data: list[tuple[Time, Value | None]]


class _Series(Answered):
    network_code: str
    metric: str
    unit: str
    results: list[_Result]


class _Answer(Answered):
    data: list[_Series]


class OpenElectricityFeed(HttpFeed):
    """Polls Open Electricity.

    Example::

        answer = OpenElectricityFeed(settings, site, "NSW1").poll()
    """

    URL, SHOWN = "https://api.openelectricity.org.au/v4", "Open Electricity"
    LIMITS = (Limit(500, per_s=86_400.0), Limit(2, per_s=1.0))
    TRIES = 1
    HINTS: ClassVar[Mapping[int, str]] = {
        401: "get a free key at https://platform.openelectricity.org.au",
        404: "it has nothing of that region in that time",
    }
    UNVERIFIED = "read from the source of the server, no answer of it was seen yet"

    def __init__(self, settings: OpenElectricitySettings, site: Site, region: Region) -> None:
        super().__init__(settings, site, region, Basis.AVERAGE_DIRECT)
        self._token = settings.token()
        self._network = "WEM" if region == "WEM" else "NEM"
        self._clocks = timezone(timedelta(hours=8 if region == "WEM" else 10))
        """The market's own, all year round."""

    def poll(self) -> Answer:
        """One request; once an hour, and where the market is a day late, it reaches two days back."""
        back = self.settles if self.is_due("past") or self._network == "WEM" else _LATELY
        since = (self._clock.now() - back).astimezone(self._clocks)
        query = {
            "interval": "5m",
            "date_start": f"{since:%Y-%m-%dT%H:%M:00}",
            "network_region": self.zone,
            "primary_grouping": "network_region",
            "secondary_grouping": "fueltech",
        }
        try:
            body = self.ask(
                f"/data/network/{self._network}?metrics=energy&metrics=emissions",
                query,
                {"Authorization": f"Bearer {self._token.read()}"},
            )
        except FeedError:
            self.ask_soon("past")
            raise
        told = self.parse(_Answer, body.json)
        found = intervals(self._intensities(told).items(), _STEP, _LONGEST)
        return self.answer(self.readings(found, self.source(Kind.ACTUAL, body)))

    def _intensities(self, told: _Answer) -> dict[datetime, float]:
        """By time; none where the emissions of something that generates are not told."""
        emissions = self._values(told, "emissions", "t")
        mwh: dict[datetime, float] = {}
        tonnes: dict[datetime, float | None] = {}
        for (at, fuel), energy in self._values(told, "energy", "MWh").items():
            if fuel in _STORING or energy <= 0:
                continue
            so_far, more = tonnes.get(at, 0.0), emissions.get((at, fuel))
            mwh[at] = mwh.get(at, 0.0) + energy
            tonnes[at] = None if so_far is None or more is None else so_far + more
        return {at: t * _G_PER_T / (mwh[at] * _KWH_PER_MWH) for at, t in tonnes.items() if t is not None}

    def _values(self, told: _Answer, metric: str, unit: str) -> dict[tuple[datetime, str], float]:
        """(time, fuel technology) → value."""
        found: dict[tuple[datetime, str], float] = {}
        for series in told.data:
            if series.metric != metric:
                continue
            if series.unit != unit or series.network_code != self._network:
                said = f"{metric} of {series.network_code[:20]!r} in {series.unit[:20]!r}"
                raise FeedError(f"{self._url}: the answer is {said}, not of {self._network} in {unit}")
            for result in series.results:
                region = result.columns.get("region", result.columns.get("network_region"))
                if region != self.zone:
                    raise FeedError(f"{self._url}: the answer is of {str(region)[:20]!r}, not of {self.zone}")
                fuel = str(result.columns.get("fueltech"))
                found |= {(at, fuel): value for at, value in result.data if value is not None}
        return found

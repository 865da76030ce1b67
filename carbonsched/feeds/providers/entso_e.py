"""Polls the Transparency Platform of Europe's transmission system operators (ENTSO-E): what each bidding zone generates.

Actual generation per type (A75, realised: A16), quarters or hours, about an hour late, of one zone; revised for days. The
intensity is made of it here (see `generation_mix`): production-based, average, lifecycle or direct as `basis` or the zone's says, an
estimate. What storage takes in, and what plants take from the grid, are series of their own, out of the zone; they are
left out. Free; a token is given on request by mail once an account is there. 400 requests a minute, then a ban of ten
minutes. An answer is cut at 1,000 rows without a word (see `entso_e_documents`): eight hours are asked for at a time, which
is fewer. The Web API was reported out since 2026-08-30, so have another feed behind this one. Documentation:
https://documenter.getpostman.com/view/7009892/2s93JtP3F6.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal
from xml.etree import ElementTree

from pydantic import StringConstraints, ValidationError

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.entso_e_documents import HINTS, LIMITS, URL, code_of, document, not_documented, points
from carbonsched.feeds.generation_mix import FACTORS, Output, Plant, intensities
from carbonsched.feeds.provider import SETTLE_EVERY_S, HttpFeed, TokenSettings, offered, place
from carbonsched.model.base import Seconds
from carbonsched.model.grid import Kind, Reading

_AT_A_TIME: Final = timedelta(hours=8)
"""22 series of quarters are 704 rows."""

PLANTS: Final = {
    "B01": Plant.BIOMASS,
    "B02": Plant.LIGNITE,
    "B03": Plant.COAL,
    "B04": Plant.GAS,
    "B05": Plant.COAL,
    "B06": Plant.OIL,
    "B07": Plant.OIL_SHALE,
    "B08": Plant.PEAT,
    "B09": Plant.GEOTHERMAL,
    "B10": Plant.STORAGE,
    "B11": Plant.HYDRO,
    "B12": Plant.HYDRO,
    "B13": Plant.MARINE,
    "B14": Plant.NUCLEAR,
    "B15": Plant.BIOMASS,
    "B16": Plant.SOLAR,
    "B17": Plant.OTHER,
    "B18": Plant.WIND_OFFSHORE,
    "B19": Plant.WIND_ONSHORE,
    "B20": Plant.OTHER,
    "B25": Plant.STORAGE,
}
"""psrType → kind of plant: gas made of coal burns like coal, "other renewable" is mostly biogas, B17 is waste; any other is
`other`."""


class EntsoeSettings(TokenSettings):
    """Keys of `[[feeds]]` with provider = "entso-e".

    Example:
        >>> EntsoeSettings(provider="entso-e", zone="DE-LU", token_env="ENTSOE_TOKEN").every
        900.0
    """

    provider: Literal["entso-e"]
    every: Seconds = 900.0
    max_age: Seconds = 14_400.0
    zone: Annotated[str, StringConstraints(min_length=1)] | None = None
    """Bidding zone, by name or EIC code; None: the config's."""

    def build(self, site: Site) -> "EntsoeFeed":
        return EntsoeFeed(self, site)


class EntsoeFeed(HttpFeed):
    """Polls the Transparency Platform's actual generation per type.

    Example::

        answer = EntsoeFeed(EntsoeSettings(provider="entso-e", zone="FR", token_env="ENTSOE_TOKEN"), site).poll()
    """

    URL, SHOWN, LIMITS, HINTS = URL, "ENTSO-E", LIMITS, HINTS

    def __init__(self, settings: EntsoeSettings, site: Site) -> None:
        name = place(settings.zone, site, "zone")
        code = code_of(name)
        basis, self._factors = offered(settings, site, FACTORS)
        super().__init__(settings, site, name, basis)
        self._token, self._eic = settings.token(), code

    def poll(self) -> Answer:
        """One request: the past eight hours; once an hour five more, for the two days that have passed."""
        now = self._clock.now()
        # whole hours: a period is named by its begin
        end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        found = self._readings(end - _AT_A_TIME, end)
        if not found:
            raise FeedError(
                f"{self._url}: no interval of which every type is known for {self.zone} in the past eight hours"
            )
        before = self.once_in(SETTLE_EVERY_S, "past two days", lambda: self._past(end))
        return self.answer([*(before or ()), *found])

    def _past(self, end: datetime) -> list[Reading]:
        """The two days before the past eight hours, oldest first."""
        steps = self.settles // _AT_A_TIME
        return [
            reading
            for i in range(steps, 1, -1)
            for reading in self._readings(end - i * _AT_A_TIME, end - (i - 1) * _AT_A_TIME)
        ]

    def _readings(self, since: datetime, until: datetime) -> list[Reading]:
        body = self.ask(
            "/api",
            {
                "securityToken": self._token.read(),
                "documentType": "A75",
                "processType": "A16",
                "in_Domain": self._eic,
                "periodStart": f"{since:%Y%m%d%H%M}",
                "periodEnd": f"{until:%Y%m%d%H%M}",
            },
            {"Accept": "application/xml"},
            json=False,
        )
        try:
            root = document(body, "GL_MarketDocument", self._url, self.zone)
            outputs = list(self._outputs(root))
        except ValidationError as e:
            raise not_documented(e, self._url) from e
        found = intensities(outputs, self._factors.g_per_kwh)
        asked = [one for one in found if since <= one[0] < until]
        return list(self.readings(asked, self.source(Kind.ESTIMATED, body, note=self._factors.note)))

    def _outputs(self, root: ElementTree.Element) -> Iterator[Output]:
        for series in root.iterfind("{*}TimeSeries"):
            zone = series.findtext("{*}inBiddingZone_Domain.mRID")
            if zone is None:
                continue  # what storage or a plant takes out of the zone
            if zone != self._eic:
                raise FeedError(f"{self._url}: the answer is of {zone[:20]!r}, asked was {self._eic}")
            code = series.findtext("{*}MktPSRType/{*}psrType") or ""
            holds = series.findtext("{*}curveType") == "A03"
            for period in series.iterfind("{*}Period"):
                for start, end, power in points(period, "quantity", self._url, holds=holds):
                    yield Output(start, end, code, PLANTS.get(code, Plant.OTHER), power)

"""Polls the Transparency Platform of Europe's transmission system operators (ENTSO-E): what each bidding zone generates.

Actual generation per type (A75, realised: A16), quarters or hours, about an hour late, of one zone; revised for days. The
intensity is made of it here (see `generation_mix`): production-based, average, lifecycle or direct as `basis` or the zone's says, an
estimate. What storage takes in, and what plants take from the grid, are series of their own, out of the zone; they are
left out. Free; a token is given on request by mail once an account is there. 400 requests a minute, then a ban of ten
minutes. Since 2025-11 an answer is cut at 1,000 rows without a word: eight hours are asked for at a time, which is fewer. A
series of curve type A03 has no points where the value stays what it was. The Web API was reported out since 2026-08-30, so
have another feed behind this one. Documentation: https://documenter.getpostman.com/view/7009892/2s93JtP3F6; codes of zones:
https://www.entsoe.eu/data/energy-identification-codes-eic/ as entsoe-py (mappings.py) and electricitymaps-contrib have them.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Final, Literal
from xml.etree import ElementTree

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.base import Answer, Site
from carbonsched.feeds.generation_mix import FACTORS, Output, Plant, intensities
from carbonsched.feeds.provider import SETTLE_EVERY_S, HttpFeed, Time, TokenSettings, offered, place
from carbonsched.feeds.transport import Body, Limit
from carbonsched.model.base import Seconds
from carbonsched.model.grid import Kind, Reading

_AT_A_TIME: Final = timedelta(hours=8)
"""22 series of quarters are 704 rows."""
_CUT_AT: Final = 1000
_LONGEST: Final = timedelta(days=4)
"""Of a period in an answer: more was not asked for."""
_STEPS: Final = {
    "PT15M": timedelta(minutes=15),
    "PT30M": timedelta(minutes=30),
    "PT60M": timedelta(hours=1),
    "PT1H": timedelta(hours=1),
}

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

ZONES: Final = {
    "AL": "10YAL-KESH-----5",
    "AT": "10YAT-APG------L",
    "BA": "10YBA-JPCC-----D",
    "BE": "10YBE----------2",
    "BG": "10YCA-BULGARIA-R",
    "CH": "10YCH-SWISSGRIDZ",
    "CY": "10YCY-1001A0003J",
    "CZ": "10YCZ-CEPS-----N",
    "DE": "10Y1001A1001A83F",
    "DE-LU": "10Y1001A1001A82H",
    "DK1": "10YDK-1--------W",
    "DK2": "10YDK-2--------M",
    "EE": "10Y1001A1001A39I",
    "ES": "10YES-REE------0",
    "FI": "10YFI-1--------U",
    "FR": "10YFR-RTE------C",
    "GE": "10Y1001A1001B012",
    "GR": "10YGR-HTSO-----Y",
    "HR": "10YHR-HEP------M",
    "HU": "10YHU-MAVIR----U",
    "IE": "10YIE-1001A00010",
    "IE-SEM": "10Y1001A1001A59C",
    "IT": "10YIT-GRTN-----B",
    "IT-CALA": "10Y1001C--00096J",
    "IT-CNOR": "10Y1001A1001A70O",
    "IT-CSUD": "10Y1001A1001A71M",
    "IT-NORD": "10Y1001A1001A73I",
    "IT-SARD": "10Y1001A1001A74G",
    "IT-SICI": "10Y1001A1001A75E",
    "IT-SUD": "10Y1001A1001A788",
    "LT": "10YLT-1001A0008Q",
    "LU": "10YLU-CEGEDEL-NQ",
    "LV": "10YLV-1001A00074",
    "MD": "10Y1001A1001A990",
    "ME": "10YCS-CG-TSO---S",
    "MK": "10YMK-MEPSO----8",
    "NL": "10YNL----------L",
    "NO1": "10YNO-1--------2",
    "NO2": "10YNO-2--------T",
    "NO3": "10YNO-3--------J",
    "NO4": "10YNO-4--------9",
    "NO5": "10Y1001A1001A48H",
    "PL": "10YPL-AREA-----S",
    "PT": "10YPT-REN------W",
    "RO": "10YRO-TEL------P",
    "RS": "10YCS-SERBIATSOV",
    "SE1": "10Y1001A1001A44P",
    "SE2": "10Y1001A1001A45N",
    "SE3": "10Y1001A1001A46L",
    "SE4": "10Y1001A1001A47J",
    "SI": "10YSI-ELES-----O",
    "SK": "10YSK-SEPS-----K",
    "XK": "10Y1001C--00100H",
}
"""Name of a bidding zone, or of a country that is one → its EIC code. Great Britain has sent nothing since 2021."""

_time: TypeAdapter[datetime] = TypeAdapter(Time)
_position: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1, le=10_000)])
_quantity: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(allow_inf_nan=False)])


def eic(zone: str) -> str | None:
    """The EIC code of a zone by its name, however it is written: `DK1`, `DK_1`, `DK-DK1`; or a code itself. None: unknown.

    Example:
        >>> eic("DK-DK1"), eic("no_2"), eic("10YFR-RTE------C"), eic("Atlantis")
        ('10YDK-1--------W', '10YNO-2--------T', '10YFR-RTE------C', None)
    """
    if re.fullmatch(r"[0-9]{2}[A-Z][A-Z0-9-]{13}", zone):
        return zone
    name = zone.strip().upper().replace("_", "-").replace("(", "-").removesuffix(")")
    country, _, part = name.partition("-")
    for written in (name, part if part.startswith(country) else "", country + part):
        if written in ZONES:
            return ZONES[written]
    return None


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

    URL, SHOWN = "https://web-api.tp.entsoe.eu", "ENTSO-E"
    LIMITS = (Limit(400, per_s=60.0),)
    HINTS = MappingProxyType({401: "is the token one of the Web API, which is given on request by mail?"})

    def __init__(self, settings: EntsoeSettings, site: Site) -> None:
        name = place(settings.zone, site, "zone")
        code = eic(name)
        if code is None:
            problem = f"{name!r} is no bidding zone that is known here"
            raise InputError("zone", problem, f"give its EIC code, or one of {', '.join(ZONES)}")
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
            outputs = list(self._outputs(self._root(body)))
        except ValidationError as e:
            said = e.errors(include_url=False, include_input=False)[0]["msg"]
            raise FeedError(f"{self._url}: the answer is not what ENTSO-E documents: {said}") from e
        found = intensities(outputs, self._factors.g_per_kwh)
        asked = [one for one in found if since <= one[0] < until]
        return list(self.readings(asked, self.source(Kind.ESTIMATED, body, note=self._factors.note)))

    def _root(self, body: Body) -> ElementTree.Element:
        try:
            text = body.raw.decode("utf-8")
            if "<!" in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL):
                # entities that expand without end are declared so
                raise FeedError(f"{self._url}: the answer declares a document type, ENTSO-E's have none")
            root = ElementTree.fromstring(text)  # noqa: S314
        except (ValueError, ElementTree.ParseError) as e:
            start = body.raw[:40].decode("utf-8", "replace")
            raise FeedError(f"{self._url}: the answer is not XML, it begins with {start!r}") from e
        kind = _name(root)
        if kind == "Acknowledgement_MarketDocument":
            said = " ".join((root.findtext("{*}Reason/{*}text") or "without a reason").split())[:160]
            raise FeedError(f"{self._url}: ENTSO-E answers nothing for {self.zone}: {said!r}")
        if kind != "GL_MarketDocument":
            raise FeedError(f"{self._url}: the answer is a {kind[:40]!r}, ENTSO-E's is a GL_MarketDocument")
        if sum(1 for _ in root.iterfind(".//{*}Point")) == _CUT_AT:
            raise FeedError(f"{self._url}: the answer has exactly {_CUT_AT} rows: it was cut off there")
        return root

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
                for start, end, power in self._points(period, holds=holds):
                    yield Output(start, end, code, PLANTS.get(code, Plant.OTHER), power)

    def _points(
        self, period: ElementTree.Element, *, holds: bool
    ) -> Iterator[tuple[datetime, datetime, float]]:
        """holds: whether a point that is left out has the value of the one before it."""
        start = _time.validate_python(period.findtext("{*}timeInterval/{*}start"))
        end = _time.validate_python(period.findtext("{*}timeInterval/{*}end"))
        resolution = period.findtext("{*}resolution") or "none"
        step = _STEPS.get(resolution)
        if step is None or not start < end <= start + _LONGEST:
            raise FeedError(
                f"{self._url}: a period of resolution {resolution[:20]!r} or length that none is known of"
            )
        count = (end - start) // step
        powers = {
            _position.validate_python(point.findtext("{*}position")): _quantity.validate_python(
                point.findtext("{*}quantity")
            )
            for point in period.iterfind("{*}Point")
        }
        last: float | None = None
        for position in range(1, count + 1):
            last = powers.get(position, last if holds else None)
            if last is not None:
                yield start + (position - 1) * step, start + position * step, last


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]

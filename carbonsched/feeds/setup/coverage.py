"""States which provider covers a zone, by which keys of `[[feeds]]`, and what it costs and lacks.

The order is that of trust where several speak one basis: first what the grid's own operator publishes, then who forecasts furthest,
then who covers most. What a value means (its basis) is not stated here but read off the feed that the keys build. Where
this comes from, beside each provider's own file:

wattnet: the 52 zones of `GET /v1/zones`, as https://github.com/GreenKubeCloud/GreenKube lists them (wattnet_collector.py).
energy-charts: the countries of https://api.energy-charts.info/openapi.json. electricity-maps: see `places`.
watttime: the region names of `GET /v3/my-access`, as https://github.com/emielkwakkel/sustainable-ai lists them.
eia: the respondents of form EIA-930, https://www.eia.gov/electricity/gridmonitor/about, which its zones are called after.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from carbonsched.feeds.countries import Country
from carbonsched.feeds.setup.places import Found
from carbonsched.feeds.static import has_country_mix

LIFECYCLE: Final = "average-lifecycle"
DIRECT: Final = "average-direct"


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EUROPE_BY_COUNTRY: Final = _codes(
    "AT BA BE BG CH CY CZ DE EE ES FI FR GB GE GR HR HU IE LT LU LV MD ME MK NL PL PT RO RS SI SK TR XK"
)
"""Countries that wattnet has as one zone; of others it has price areas."""
_WATTNET_ITALY: Final = {
    "IT-NO": "IT_NORTH",
    "IT-CNO": "IT_CNORTH",
    "IT-CSO": "IT_CSOUTH",
    "IT-SO": "IT_SOUTH",
    "IT-SAR": "IT_SARDINIA",
    "IT-SIC": "IT_SICILY",
}
_ENERGY_CHARTS: Final = _EUROPE_BY_COUNTRY | _codes("AL AM AZ BY DK IT MT NO RU SE UA")
_ENTSO_E: Final = _codes(
    "AL AT BA BE BG CH CY CZ DE EE ES FI FR GE GR HR HU IE LT LU LV MD ME MK NL PL PT RO RS SI SK XK"
)
_ENTSO_E_ITALY: Final = {
    "IT": "IT",
    "IT-NO": "IT-NORD",
    "IT-CNO": "IT-CNOR",
    "IT-CSO": "IT-CSUD",
    "IT-SO": "IT-SUD",
    "IT-SAR": "IT-SARD",
    "IT-SIC": "IT-SICI",
}
_WATTTIME_ALPHA_2: Final = _codes(
    "AT BA BE BG CH CY CZ DE DK EE ES FI FR GR HR HU IE IT LT LV ME NL NO PL PT RO RS SE SI SK"
)
_WATTTIME: Final = {
    "GB": "UK",
    "AU-WA": "WEM",
    "CA-AB": "AESO",
    "CA-BC": "BCHYDRO",
    "CA-QC": "HQ",
    "CL-SEN": "CHL",
    "MX": "MX_SIN",
    "US-NW-BPAT": "BPA",
    "US-NW-NWMT": "MPCO",
    "US-SW-EPE": "ELE",
    "US-CAL-TIDC": "TID",
}
_WATTTIME_SPLIT: Final = _codes(
    "US-CAL-CISO US-CENT-SWPP US-MIDA-PJM US-MIDW-MISO US-NE-ISNE US-NY-NYIS US-TEX-ERCO US-HI US-AK CA-ON"
)
"""Zones that WattTime has several regions of: which one, the table of places says."""
_NO_ELECTRICITY_MAPS: Final = _codes(
    "AI AQ AS BL BQ BV CC CK CL CX GD IO KI KN MF MH MP MS NF NR NU PN SH SM SX TC TK TV UM VA VG WF"
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a provider gives, wants and lacks.

    Example:
        >>> TERMS["neso"].account, TERMS["neso"].forecast_h
        ('', 48.0)
    """

    shown: str
    step_min: int | None
    """Of its values; None: the same all year."""
    forecast_h: float
    """How far it looks ahead at best; 0: not at all."""
    account: str
    """How to get one; empty: none is needed."""
    cost: str
    lacks: str


TERMS: Final[Mapping[str, Terms]] = MappingProxyType(
    {
        "neso": Terms(
            "NESO", 30, 48.0, "", "free, CC BY 4.0", "what is emitted in the making of plants and fuels"
        ),
        "energi-data-service": Terms(
            "Energi Data Service",
            5,
            24.0,
            "",
            "free",
            "a forecast beyond about a day, at times beyond 9 hours",
        ),
        "wattnet": Terms(
            "wattnet",
            15,
            96.0,
            "register email and password at https://api.wattnet.eu/token-request/register; some accounts wait for approval",
            "free, EU-funded",
            "a promise of service: its values settle after up to 4 hours",
        ),
        "electricity-maps": Terms(
            "Electricity Maps",
            60,
            72.0,
            "get a token at https://app.electricitymaps.com; it reads one zone in the free plan",
            "free for one zone and personal use; commercial use by contract",
            "a forecast in the free plan",
        ),
        "open-electricity": Terms(
            "Open Electricity",
            5,
            0.0,
            "get a key at https://platform.openelectricity.org.au",
            "free for non-commercial use",
            "a forecast; imports",
        ),
        "rte": Terms("RTE éCO2mix", 15, 0.0, "", "free", "a forecast; imports"),
        "entso-e": Terms(
            "ENTSO-E",
            15,
            0.0,
            "register at https://transparency.entsoe.eu and ask transparency@entsoe.eu for an API token",
            "free",
            "a forecast; imports, unless `mix` says consumption; its API is reported out since 2026-08-30",
        ),
        "eia": Terms(
            "EIA-930",
            60,
            0.0,
            "get a key at https://www.eia.gov/opendata/register.php, by email at once",
            "free, public domain",
            "a forecast; imports, unless `mix` says consumption; it is one to two hours late",
        ),
        "energy-charts": Terms(
            "Energy-Charts",
            15,
            24.0,
            "",
            "free, CC BY 4.0",
            "a word on whether its factors are direct or lifecycle, so that nothing may stand beside it; about three hours late",
        ),
        "watttime": Terms(
            "WattTime",
            5,
            72.0,
            "register at https://docs.watttime.org (POST /register); beyond CAISO_NORTH a plan is needed",
            "free for CAISO_NORTH, else by plan",
            "the average: it is marginal, for what one more kWh emits",
        ),
        "static": Terms(
            "codecarbon's country mix",
            None,
            0.0,
            "",
            "free",
            "the hours: it is one number for all of a country's year, so nothing follows the grid",
        ),
    }
)
"""By provider. Those that a site runs itself (carbon-aware-sdk, prometheus, replay) cover no zone of their own."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A provider that covers a zone, and the table of `[[feeds]]` that asks it.

    Example:
        >>> from carbonsched.feeds.setup.places import find
        >>> next(offers(find("London"))).keys
        {'provider': 'neso'}
    """

    provider: str
    keys: dict[str, str]

    @property
    def terms(self) -> Terms:
        return TERMS[self.provider]


def offers(found: Found) -> Iterator[Offer]:
    """All that covers the zone, in order of trust; one provider stands twice where it speaks two bases."""
    token = {
        name: {"token_file": f"{name}.token"}
        for name in ("electricity-maps", "open-electricity", "entso-e", "eia")
    }
    for provider, keys, bases in (
        ("neso", _neso(found), ("",)),
        ("energi-data-service", _energi_data_service(found), ("",)),
        ("wattnet", _wattnet(found), (LIFECYCLE, DIRECT)),
        ("electricity-maps", _electricity_maps(found), (LIFECYCLE, DIRECT)),
        ("open-electricity", _open_electricity(found), ("",)),
        ("rte", {} if found.zone.key == "FR" else None, ("",)),
        ("entso-e", _entso_e(found), (LIFECYCLE, DIRECT)),
        ("eia", _eia(found), (LIFECYCLE, DIRECT)),
        ("energy-charts", _energy_charts(found), ("",)),
        ("watttime", _watttime(found), ("",)),
        ("static", _static(found.country), ("",)),
    ):
        if keys is None:
            continue
        for basis in bases:
            stated = {"basis": basis} if basis else {}
            yield Offer(provider, {"provider": provider, **keys, **stated, **token.get(provider, {})})


def _neso(found: Found) -> dict[str, str] | None:
    return {} if found.zone.key == "GB" else None


def _energi_data_service(found: Found) -> dict[str, str] | None:
    areas = {"DK-DK1": "DK1", "DK-DK2": "DK2"}
    return {"price_area": areas[found.zone.key]} if found.zone.key in areas else None


def _wattnet(found: Found) -> dict[str, str] | None:
    key = found.zone.key
    if key in _EUROPE_BY_COUNTRY:
        zone = key
    elif key.startswith(("DK-DK", "NO-NO", "SE-SE")):
        zone = key.rpartition("-")[2]
    elif key == "GB-NIR":
        zone = "NIE"
    else:
        zone = _WATTNET_ITALY.get(key, "")
    login = {"email": "you@example.org", "password_file": "wattnet.password"}
    return {"zone": zone, **login} if zone else None


def _electricity_maps(found: Found) -> dict[str, str] | None:
    return None if found.zone.key in _NO_ELECTRICITY_MAPS else {"zone": found.zone.key}


def _open_electricity(found: Found) -> dict[str, str] | None:
    country, _, state = found.zone.key.partition("-")
    if country != "AU" or state not in ("NSW", "QLD", "SA", "TAS", "VIC"):
        return None  # Western Australia's is a day late: nothing to steer by
    return {"region": f"{state}1"}


def _entso_e(found: Found) -> dict[str, str] | None:
    key = found.zone.key
    if key in _ENTSO_E_ITALY:
        return {"zone": _ENTSO_E_ITALY[key]}
    if key in _ENTSO_E or key.startswith(("DK-DK", "NO-NO", "SE-SE")):
        return {"zone": key}
    return None


def _eia(found: Found) -> dict[str, str] | None:
    key = found.zone.key
    if not key.startswith("US-") or key.count("-") < 2:
        return {"respondent": "US48"} if key == "US" else None
    return {"respondent": key.rpartition("-")[2]}


def _energy_charts(found: Found) -> dict[str, str] | None:
    key = found.zone.key
    if key == "GB-NIR":
        return {"country": "nie"}
    return {"country": "uk" if key == "GB" else key.lower()} if key in _ENERGY_CHARTS else None


def _watttime(found: Found) -> dict[str, str] | None:
    region = _watttime_region(found)
    login = {"username": "you", "password_file": "watttime.password"}
    return {"region": region, **login} if region else None


def _watttime_region(found: Found) -> str:
    """Empty where it is not known."""
    key = found.zone.key
    if found.place is not None and found.place.watttime:
        return found.place.watttime
    if key in _WATTTIME:
        return _WATTTIME[key]
    if key in _WATTTIME_SPLIT or key in ("US", "CA", "AU", "JP"):
        return ""
    country, _, part = key.partition("-")
    if country in _WATTTIME_ALPHA_2:
        return country
    if country == "US":
        return part.rpartition("-")[2]
    if country == "JP":
        return f"JP_{part}"
    if country == "AU":
        return f"NEM_{part}" if part in ("NSW", "QLD", "SA", "TAS", "VIC") else ""
    if country == "CA":
        return ""
    return "" if country in ("XK", "LU", "GB") else found.country.alpha_3


def _static(country: Country) -> dict[str, str] | None:
    return {"country": country.alpha_3} if has_country_mix(country.alpha_3) else None

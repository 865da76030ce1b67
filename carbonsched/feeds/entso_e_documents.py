"""Reads documents of ENTSO-E's Transparency Platform of any kind: XML, periods of one resolution, zones by EIC code.

Since 2025-11 an answer is silently cut at 1,000 rows. A series of curve type A03 omits points whose value did not change. Codes of zones:
https:

www.entsoe.eu/data/energy-identification-codes-eic/ as entsoe-py (mappings.py) and electricitymaps-contrib list them.
"""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Final
from xml.etree import ElementTree

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from carbonsched.errors import FeedError, InputError
from carbonsched.feeds.provider import Interval, Time
from carbonsched.feeds.transport import Body, Limit
from carbonsched.model.error_words import first_words
from carbonsched.units import plain_number

URL: Final = "https://web-api.tp.entsoe.eu"
LIMITS: Final = (Limit(400, per_s=60.0),)
"""Exceeding them leads to a ban of ten minutes."""
HINTS: Final = MappingProxyType({401: "is the token one of the Web API, which is given on request by mail?"})
_CUT_AT: Final = 1000
_LONGEST: Final = timedelta(days=4)
"""Longest period in an answer: more was not asked for."""
_STEPS: Final = {
    "PT15M": timedelta(minutes=15),
    "PT30M": timedelta(minutes=30),
    "PT60M": timedelta(hours=1),
    "PT1H": timedelta(hours=1),
}

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
_plain = BeforeValidator(lambda text: plain_number(text) if isinstance(text, str) else text)
_position: TypeAdapter[int] = TypeAdapter(Annotated[int, _plain, Field(ge=1, le=10_000)])
_value: TypeAdapter[float] = TypeAdapter(Annotated[float, _plain, Field(allow_inf_nan=False)])


class NothingToldError(FeedError):
    """ENTSO-E has no data for the request, which is a valid answer.

    Example:
        >>> isinstance(NothingToldError("No matching data found"), FeedError)
        True
    """


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


def code_of(zone: str) -> str:
    """The EIC code of a zone. Raises InputError for one that is not known."""
    code = eic(zone)
    if code is None:
        problem = f"{zone!r} is no bidding zone that is known here"
        raise InputError("zone", problem, f"give its EIC code, or one of {', '.join(ZONES)}")
    return code


def document(body: Body, kind: str, url: str, zone: str) -> ElementTree.Element:
    """The document in an answer. Raises FeedError for anything else, and for a truncated one, NothingToldError if ENTSO-E has no data for
    the request."""
    try:
        text = body.raw.decode("utf-8")
        if "<!" in re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL):
            # entities that expand without end are declared there
            raise FeedError(f"{url}: the answer declares a document type, ENTSO-E's have none")
        root = ElementTree.fromstring(text)  # noqa: S314
    except (ValueError, ElementTree.ParseError) as e:
        start = body.raw[:40].decode("utf-8", "replace")
        raise FeedError(f"{url}: the answer is not XML, it begins with {start!r}") from e
    found = root.tag.rpartition("}")[2]
    if found == "Acknowledgement_MarketDocument":
        said = " ".join((root.findtext("{*}Reason/{*}text") or "without a reason").split())[:160]
        error = NothingToldError if "no matching data" in said.lower() else FeedError
        raise error(f"{url}: ENTSO-E answers nothing for {zone}: {said!r}")
    if found != kind:
        raise FeedError(f"{url}: the answer is a {found[:40]!r}, ENTSO-E's is a {kind}")
    if sum(1 for _ in root.iterfind(".//{*}Point")) == _CUT_AT:
        raise FeedError(f"{url}: the answer has exactly {_CUT_AT} rows: it was cut off there")
    return root


def points(period: ElementTree.Element, name: str, url: str, *, holds: bool) -> Iterator[Interval]:
    """The values of a period. Raises FeedError, or ValidationError for an invalid time or number (`not_documented`). name: of a point's
    value. holds: whether an omitted point repeats the value before it."""
    start = _time.validate_python(period.findtext("{*}timeInterval/{*}start"))
    end = _time.validate_python(period.findtext("{*}timeInterval/{*}end"))
    resolution = period.findtext("{*}resolution") or "none"
    step = _STEPS.get(resolution)
    if step is None or not start < end <= start + _LONGEST:
        raise FeedError(f"{url}: a period of resolution {resolution[:20]!r} or length that none is known of")
    count = (end - start) // step
    values = {
        _position.validate_python(point.findtext("{*}position")): _value.validate_python(
            point.findtext(f"{{*}}{name}")
        )
        for point in period.iterfind("{*}Point")
    }
    last: float | None = None
    for position in range(1, count + 1):
        last = values.get(position, last if holds else None)
        if last is not None:
            yield start + (position - 1) * step, start + position * step, last


def not_documented(error: ValidationError, url: str) -> FeedError:
    """The error for an answer with invalid times or numbers."""
    said = first_words(error.errors(include_url=False, include_input=False))
    return FeedError(f"{url}: the answer is not what ENTSO-E documents: {said}")

"""Finds the grid zone of a place, offline: of a country, a city, coordinates, a university or a data centre's region.

Two tables stand beside this file, and their facts come from here (seen 2026-11-28):

`zones.csv`: names of the zones of countries that have more than one grid or price area; any other country is one zone, called
by its ISO 3166 code of two letters. The keys are those of Electricity Maps, which the others' are made of in `coverage`:
https://github.com/electricitymaps/electricitymaps-contrib, config/zones, commit of 2026-08-21.
`places.csv`: capitals, other cities, ten universities, and the regions of three clouds with where they lie. Zones of regions:
config/data_centers of the same repository; where they lie: https://docs.aws.amazon.com/global-infrastructure/latest/regions,
https://learn.microsoft.com/azure/reliability/regions-list, https://cloud.google.com/compute/docs/regions-zones. Coordinates
are of the town, to a hundredth of a degree; each lies in the bounds that config/zones gives its zone. The last column is
WattTime's name of the region, where a zone has several (https://docs.watttime.org, "regions").

Coordinates take the zone of the nearest place of the table, by great circle, and the distance is told: borders are not known here.
"""

import csv
import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Final

from carbonsched.errors import InputError
from carbonsched.feeds.countries import Country, country_called, every_country

CLOUDS: Final = {"aws": "AWS", "azure": "Azure", "gcp": "Google Cloud"}
"""Kinds of places that are a cloud's regions → whose."""
_CLOUD_WORDS: Final = ("google cloud", "google", "gcp", "aws", "amazon", "microsoft", "azure")
"""What may stand before a region's name."""
_EARTH_KM: Final = 6371.0
_FAR_KM: Final = 1000.0
"""Further than this from every place of the table no zone is named."""
_NEAR_KM: Final = 150.0
"""Another zone's place so near, or nearer than half as far again as the nearest, is told beside it."""
_DEGREES: Final = r"([-+]?\d{1,9}(?:\.\d+)?)\s*°?\s*"
_COORDINATES: Final = re.compile(
    rf"^\(?{_DEGREES}([NS]?)\s*[,;\s]\s*{_DEGREES}([EW]?)\)?$", re.IGNORECASE | re.ASCII
)
"""Latitude and longitude: `52.5,13.4`, `52.5 N 13.4 E`."""
_PART_OF_A_REGION: Final = re.compile(r"^([a-z]+-[a-z]+(?:-[a-z]+)?-?\d+)-?[a-f]$")
"""An availability zone: `us-east-1a`, `europe-west4-b`."""
_ALIASES: Final = {
    "england": "GB",
    "scotland": "GB",
    "wales": "GB",
    "california": "US-CAL-CISO",
    "caiso": "US-CAL-CISO",
    "ercot": "US-TEX-ERCO",
    "iso-ne": "US-NE-ISNE",
    "miso": "US-MIDW-MISO",
    "nyiso": "US-NY-NYIS",
    "spp": "US-CENT-SWPP",
    "texas": "US-TEX-ERCO",
    "new england": "US-NE-ISNE",
    "washington dc": "US-MIDA-PJM",
    "washington, dc": "US-MIDA-PJM",
    "new york city": "US-NY-NYIS",
    "quebec": "CA-QC",
    "bombay": "IN-WE",
    "bangalore": "IN-SO",
    "kiev": "UA",
}
"""What people also call a zone's place, in small letters without accents."""
_SHOWN_CLOSE: Final = 6


@dataclass(frozen=True, slots=True)
class GridZone:
    """A grid zone, by the key that Electricity Maps gives it.

    Example:
        >>> zone_of("DK-DK1")
        GridZone(key='DK-DK1', name='West Denmark', country='DK')
    """

    key: str
    name: str
    country: str
    """ISO 3166 code of two letters."""


@dataclass(frozen=True, slots=True)
class Place:
    """A row of the table of places.

    Example:
        >>> find("eu-central-1").place.shown
        'AWS eu-central-1, Frankfurt'
    """

    kind: str
    name: str
    where: str
    latitude: float
    longitude: float
    zone: str
    watttime: str = ""
    """WattTime's region, where its zone has several; empty: not known."""

    @property
    def shown(self) -> str:
        """As people read it."""
        name = f"{CLOUDS[self.kind]} {self.name}" if self.kind in CLOUDS else self.name
        return f"{name}, {self.where}" if self.where and self.where not in self.name else name

    def km_to(self, latitude: float, longitude: float) -> float:
        """Great-circle distance, by the haversine formula on a sphere."""
        a, b = math.radians(self.latitude), math.radians(latitude)
        half = math.sin((b - a) / 2) ** 2
        half += math.cos(a) * math.cos(b) * math.sin(math.radians(longitude - self.longitude) / 2) ** 2
        return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(half)))


@dataclass(frozen=True, slots=True)
class Found:
    """The zone of what somebody said, and how it was found.

    Example:
        >>> find("52.5,13.4").how
        'the nearest place known is Berlin, 2 km away'
    """

    said: str
    zone: GridZone
    country: Country
    how: str
    place: Place | None = None
    km: float | None = None
    """Of coordinates: how far the place lies from them."""
    parts: tuple[GridZone, ...] = ()
    """Of a whole country: the zones it has inside, where it has several."""


def find(said: str, field: str = "--place") -> Found:
    """The zone of a place. Raises InputError in one line: not known (with what is close), ambiguous, too far from all."""
    text = " ".join(said.split())
    if (at := _COORDINATES.match(text)) is not None:
        latitude, longitude = (
            float(number) * (-1 if side.upper() in ("S", "W") else 1)
            for number, side in (at.group(1, 2), at.group(3, 4))
        )
        return _nearest(text, latitude, longitude, field)
    if (zone := _zone_by_key(text)) is not None:
        country = _country(zone)
        return Found(text, zone, country, f"{zone.key} is a grid zone", parts=_parts(zone.key))
    if (place := _place_called(text)) is not None:
        zone = zone_of(place.zone)
        how = f"{place.shown} lies in {zone.name}"
        return Found(text, zone, _country(zone), how, place=place)
    if (named := country_called(text)) is not None:
        zone = zone_of(named.alpha_2)
        return Found(text, zone, named, f"{named.name} is {zone.key}", parts=_parts(zone.key))
    if (zone := _zone_by_last_part(text)) is not None:
        return Found(text, zone, _country(zone), f"{text} is {zone.key}")
    raise InputError(field, f"{said!r} is no country, city, region or coordinates known here", _close(text))


def search(said: str, field: str = "--zones") -> tuple[Found | GridZone, ...]:
    """Every zone that a word may mean: what `find` says, the zones inside a country, and those with the word in a name.

    Raises InputError where there is none.
    """
    try:
        found = find(said, field)
    except InputError:
        matching = _zones_named(said)
        if not matching:
            raise
        return matching
    return found, *found.parts


def zone_of(key: str) -> GridZone:
    """The zone of this key, exactly as written in the tables."""
    country = key.partition("-")[0]
    name = _names().get(key)
    if name is None:
        known = country_called(country)
        name = known.name if known is not None else key
    return GridZone(key, name, country)


@cache
def places() -> tuple[Place, ...]:
    """The table of places."""
    return tuple(
        Place(
            row["kind"],
            row["name"],
            row["where"],
            float(row["latitude"]),
            float(row["longitude"]),
            row["zone"],
            row["watttime"],
        )
        for row in _table("places.csv")
    )


@cache
def _names() -> dict[str, str]:
    return {row["zone"]: row["name"] for row in _table("zones.csv")}


def _table(name: str) -> Iterable[dict[str, str]]:
    text = files("carbonsched.feeds.setup").joinpath(name).read_text(encoding="utf-8")
    return csv.DictReader(text.splitlines())


@cache
def _parts(key: str) -> tuple[GridZone, ...]:
    """The zones inside a country that has several."""
    return tuple(zone_of(name) for name in _names() if name.startswith(f"{key}-"))


def _country(zone: GridZone) -> Country:
    found = country_called(zone.country)
    assert found is not None  # noqa: S101  every row's country is one: a test reads them all
    return found


def _zone_by_key(text: str) -> GridZone | None:
    wanted = text.upper().replace("_", "-")
    return zone_of(wanted) if wanted in _names() or wanted in _keys_of_places() else None


def _zone_by_last_part(text: str) -> GridZone | None:
    """`dk1` is DK-DK1, `CISO` is US-CAL-CISO."""
    ending = [key for key in _names() if key.endswith(f"-{text.upper()}")]
    return zone_of(ending[0]) if len(ending) == 1 and len(text) > 2 else None


@cache
def _keys_of_places() -> frozenset[str]:
    return frozenset(place.zone for place in places())


def _plain(text: str) -> str:
    """Small letters without accents, so that `Sao Paulo` is São Paulo."""
    letters = unicodedata.normalize("NFKD", text.casefold().replace("ł", "l").replace("ø", "o"))
    return " ".join("".join(c for c in letters if not unicodedata.combining(c)).replace("’", "'").split())


@cache
def _by_name() -> dict[str, Place]:
    found: dict[str, Place] = {}
    for place in places():
        found.setdefault(_plain(place.name), place)
    return found


def _place_called(text: str) -> Place | None:
    plain = _plain(text)
    for cloud in _CLOUD_WORDS:
        plain = plain.removeprefix(f"{cloud} ").removeprefix(f"{cloud}:")
    if (part := _PART_OF_A_REGION.match(plain)) is not None:
        plain = part[1]
    named = _by_name()
    if plain in named:
        return named[plain]
    if (key := _ALIASES.get(plain)) is not None:
        return next((place for place in places() if place.zone == key), None)
    town, comma, country = plain.rpartition(",")
    place, inside = named.get(town.strip()), country_called(country) if comma else None
    if place is None or inside is None or zone_of(place.zone).country != inside.alpha_2:
        return None
    return place


def _nearest(text: str, latitude: float, longitude: float, field: str) -> Found:
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        hint = "write latitude,longitude in degrees, e.g. 52.5,13.4"
        raise InputError(field, f"{text!r} lies on no globe", hint)

    def from_here(place: Place) -> float:
        return place.km_to(latitude, longitude)

    place = min(places(), key=from_here)
    km, zone = from_here(place), zone_of(place.zone)
    if km > _FAR_KM:
        problem = f"the nearest place known to {text} is {place.shown}, {km:,.0f} km away"
        raise InputError(field, problem, "name a zone: carbonsched grid --zones COUNTRY lists them")
    other = min((one for one in places() if one.zone != place.zone), key=from_here)
    beside = ""
    if from_here(other) < max(_NEAR_KM, 1.5 * km):
        beside = f"; {other.shown} in {other.zone} is {from_here(other):,.0f} km away: see which side of the border you are on"
    how = f"the nearest place known is {place.shown}, {km:,.0f} km away{beside}"
    return Found(text, zone, _country(zone), how, place=place, km=round(km, 1))


def _zones_named(said: str) -> tuple[GridZone, ...]:
    plain = _plain(said)
    if len(plain) < 3:
        return ()
    return tuple(
        zone_of(key) for key in dict.fromkeys(key for name, key in _zones_by_name() if plain in name)
    )


@cache
def _zones_by_name() -> tuple[tuple[str, str], ...]:
    """(a name in small letters without accents, the zone's key) of zones, places and countries."""
    zones = [(said, key) for key, name in _names().items() for said in (name, key)]
    called = [(place.shown, place.zone) for place in places()]
    countries = [(each.name, each.alpha_2) for each in every_country()]
    return tuple((_plain(said), key) for said, key in (*zones, *called, *countries))


@cache
def _shown_names() -> dict[str, str]:
    """Every place and country, in small letters without accents → as it is written."""
    known = {name: place.name for name, place in _by_name().items()}
    return known | {_plain(each.name): each.name for each in every_country()}


def _close(text: str) -> str:
    """What was meant, perhaps."""
    plain, known = _plain(text), _shown_names()
    inside = [shown for name, shown in known.items() if len(plain) > 2 and plain in name]
    close = [known[name] for name in get_close_matches(plain, known, n=3, cutoff=0.75)]
    if found := list(dict.fromkeys((*inside, *close)))[:_SHOWN_CLOSE]:
        return f"did you mean {', '.join(found)}?"
    return "give a country, a larger city near it, a cloud's region, or coordinates like 52.5,13.4"

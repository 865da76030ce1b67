"""Names countries: ISO 3166 codes and names by pycountry, and what people and the EU write beside them."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from carbonsched.errors import InputError


@dataclass(frozen=True, slots=True)
class Country:
    """A country as ISO 3166 has it.

    Example:
        >>> country_called("uk")
        Country(alpha_2='GB', alpha_3='GBR', name='United Kingdom')
    """

    alpha_2: str
    alpha_3: str
    name: str


_ALSO_CALLED: Final = {
    "uk": "GBR",
    "great britain": "GBR",
    "el": "GRC",
    "holland": "NLD",
    "the netherlands": "NLD",
    "united states of america": "USA",
    "ivory coast": "CIV",
    "dr congo": "COD",
    "burma": "MMR",
    "swaziland": "SWZ",
    "macedonia": "MKD",
    "czech republic": "CZE",
    "timor leste": "TLS",
    "south korea": "KOR",
    "north korea": "PRK",
    "russia": "RUS",
    "turkey": "TUR",
    "vietnam": "VNM",
    "laos": "LAO",
    "syria": "SYR",
    "brunei": "BRN",
    "cape verde": "CPV",
    "palestine": "PSE",
    "emirates": "ARE",
}
"""What people and the EU write (UK, EL) and ISO 3166 does not list, in small letters."""
_CALLED: Final = {
    "TUR": "Türkiye",
    "COD": "DR Congo",
    "RUS": "Russia",
    "LAO": "Laos",
    "SYR": "Syria",
    "PSE": "Palestine",
    "VGB": "British Virgin Islands",
    "VIR": "US Virgin Islands",
}
"""Where ISO's name is not what people say, and it has no common one."""
_KOSOVO: Final = Country("XK", "XKX", "Kosovo")
"""No code of ISO 3166, but what the providers of Europe's grid data use."""
_WAYS: Final = ("alpha_2", "alpha_3", "name", "common_name", "official_name")


def country_called(said: str) -> Country | None:
    """The country whose code or name this is, and no other's; None: there is none."""
    wanted = " ".join(said.split()).casefold()
    return _by_name().get(_ALSO_CALLED.get(wanted, wanted).casefold())


def check_country(zone: str, alpha_2: str, provider: str) -> None:
    """Raises InputError where a zone is another country's than the only one that a provider tells of.

    A zone that names no country, like a grid's region, is taken for a part of it.
    """
    first = zone.partition("-")[0]
    if first.upper() == alpha_2:
        return
    country = country_called(zone) or (country_called(first) if len(first) == len(alpha_2) else None)
    if country is not None and country.alpha_2 != alpha_2:
        problem = f"{provider} tells of {alpha_2} alone, and zone.name is {zone!r}"
        raise InputError(
            "provider", problem, f"take a feed of it: carbonsched grid --setup --place {country.alpha_2}"
        )


@cache
def every_country() -> tuple[Country, ...]:
    """All of them, by their codes."""
    return tuple(sorted(set(_by_name().values()), key=lambda each: each.alpha_2))


@cache
def _by_name() -> dict[str, Country]:
    from pycountry import countries  # 0.1 s, which only who asks has to pay

    found = dict.fromkeys(("xk", "xkx", "kosovo"), _KOSOVO)
    for way in reversed(_WAYS):
        found |= {
            str(getattr(each, way)).casefold(): _country(each) for each in countries if hasattr(each, way)
        }
    return found


def _country(each: Any) -> Country:
    name = _CALLED.get(each.alpha_3) or getattr(each, "common_name", None) or str(each.name)
    return Country(each.alpha_2, each.alpha_3, name.split(", ")[0] if name.count(", ") == 1 else name)

"""Answers a constant intensity: labelled `static` where it is the source that the config states, else `fallback`.

Either a country's mean mix of a year, from the data file that codecarbon ships (average, lifecycle; Our World in Data /
Ember), or a figure the user states with its basis and source.
"""

import functools
import hashlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.feeds.base import Answer, FeedSettings, Site
from carbonsched.feeds.constant import Constant
from carbonsched.feeds.countries import country_called
from carbonsched.model.base import refusal
from carbonsched.model.grid import Basis, Kind, Reading, Source

_MIX: Final = "private_infra/global_energy_mix.json"
_EITHER: Final = "give either country, like DEU, or g_per_kwh, basis and source"
_OF_SEVERAL: Final = frozenset({"DE-LU", "DE_LU", "DE-AT-LU", "DE_AT_LU"})
"""Zones that are several countries'."""
_MIX_BASIS: Final = Basis.AVERAGE_LIFECYCLE


@functools.cache
def _country_mix() -> tuple[dict[str, dict[str, Any]], str]:
    # codecarbon's own DataSource loads this file and three CSVs with pandas, which alone would double the daemon
    spec = find_spec("codecarbon")  # finds the package and does not import it
    if spec is None or spec.origin is None:
        return {}, ""
    raw = Path(spec.origin).with_name("data").joinpath(_MIX).read_bytes()
    return json.loads(raw), hashlib.sha256(raw).hexdigest()


def has_country_mix(alpha_3: str) -> bool:
    """Whether codecarbon has data for a country, by its code of three letters, and is installed."""
    return alpha_3 in _country_mix()[0]


def country_mix(country: str, field: str) -> tuple[float, str, str]:
    """(g/kWh, what it is, SHA-256 of the file) for a country: its ISO 3166 code of two or three letters, or its name.

    Raises InputError; its hint never names another country, whose mix would then be booked.
    """
    mix, sha256 = _country_mix()
    code = _alpha_3(country, mix)
    entry = mix.get(code) if code else None
    if not mix:
        hint = "give g_per_kwh, basis and source in its place, or pip install 'carbonsched[codecarbon]'"
        raise InputError(field, "needs codecarbon's data, and codecarbon is not installed", hint)
    if entry is None:
        known = f"is {code}, for which codecarbon has no data" if code else "is not a country's code or name"
        hint = (
            "give g_per_kwh, basis and source in its place"
            if code
            else "write it like DEU, DE or Germany (ISO 3166)"
        )
        raise InputError(field, f"{country!r} {known}", hint)
    what = f"codecarbon, mean mix of {entry['country_name']} in {entry['year']}"
    return float(entry["carbon_intensity"]), what, sha256


def _alpha_3(country: str, mix: dict[str, dict[str, Any]]) -> str | None:
    """The code of three letters for a code or name that is one country's and no other's; None: there is none."""
    said = " ".join(country.split()).casefold()
    by_name = {str(row["country_name"]).casefold(): code for code, row in mix.items()}
    if said in by_name:
        return by_name[said]
    found = country_called(said)
    return None if found is None else found.alpha_3


def _country_of(zone: str) -> str:
    """The country that a zone's name begins with, or is: `DE`, `DK-DK1`, `NO2`. Raises InputError where it tells of none, or of two."""
    named = re.fullmatch(r"([A-Z]{2})(?:[0-9]+|[-_].+)?", zone)
    code = named[1] if named and zone not in _OF_SEVERAL and country_called(named[1]) else ""
    if not code:
        raise InputError("country", f"is missing, and the zone {zone!r} is not one country's", _EITHER)
    return code


class StaticSettings(FeedSettings):
    """Keys of `[[feeds]]` with provider = "static": either `country`, or `g_per_kwh`, `basis` and `source`.

    Example:
        >>> StaticSettings(provider="static", country="DEU").country
        'DEU'
    """

    provider: Literal["static"]
    country: str | None = None
    """A country's ISO 3166 code (DEU, DE) or name, for codecarbon's country mix; None: the zone's, where its name tells it."""
    g_per_kwh: Annotated[float, Field(ge=0)] | None = None
    """A fixed intensity; needs `basis` and `source`."""
    source: str | None = None
    """Where a fixed g_per_kwh comes from."""
    label: str = ""
    """Shown wherever a value of this feed is, e.g. `synthetic`."""

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.g_per_kwh is not None:
            if self.country is not None:
                raise refusal("country", "stands beside g_per_kwh", _EITHER)
            for key in ("basis", "source"):
                if getattr(self, key) is None:
                    raise refusal(key, "is missing", "say what g_per_kwh means and where it comes from")
        elif self.source is not None:
            raise refusal("source", "is codecarbon's data for a country", f"drop it, or {_EITHER}")
        elif self.basis not in (None, _MIX_BASIS):
            raise refusal("basis", f"codecarbon's country mix is {_MIX_BASIS}, not {self.basis}", "drop it")
        return self

    def build(self, site: Site) -> "StaticFeed":
        """Raises InputError where there is no country, or codecarbon has no data for it."""
        if self.g_per_kwh is not None:
            assert self.basis is not None  # noqa: S101  its keys were checked
            g_per_kwh, note, sha256, basis = self.g_per_kwh, self.source or "", None, self.basis
        else:
            g_per_kwh, note, sha256 = country_mix(self.country or _country_of(site.zone.name), "country")
            basis = _MIX_BASIS
        return StaticFeed(
            site.clock,
            name=self.shown_name,
            zone=site.zone.name,
            basis=basis,
            g_per_kwh=g_per_kwh,
            note="; ".join(part for part in (self.label, note) if part),
            body_sha256=sha256,
            max_age_s=self.max_age,
        )


class StaticFeed(Constant[Reading]):
    """Answers one intensity for this year and the last, whatever the hour.

    Example::

        feed = StaticFeed(
            clock, name="bill", zone="DE", basis=Basis.AVERAGE_LIFECYCLE, g_per_kwh=300.0, note="utility bill 2025"
        )
        feed.poll().readings[-1].g_per_kwh
    """

    def __init__(
        self,
        clock: Clock,
        *,
        name: str,
        zone: str,
        basis: Basis,
        g_per_kwh: float,
        note: str,
        body_sha256: str | None = None,
        max_age_s: float = 7200.0,
    ) -> None:
        self.basis = basis
        source = Source(
            provider=name,
            zone=zone,
            basis=basis,
            kind=Kind.FALLBACK,
            fetched_at=clock.now(),
            body_sha256=body_sha256,
            note=note,
        )
        super().__init__(clock, Reading.of, g_per_kwh, source, max_age_s)

    def as_source(self) -> None:
        """From now on it is what the config states as the source, and stands in for nobody."""
        self._source = self._source.model_copy(update={"kind": Kind.STATIC})

    def poll(self) -> Answer:
        return Answer(self.years())

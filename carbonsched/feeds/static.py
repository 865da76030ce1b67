"""A constant intensity: what stands in when no feed answers. It is always labelled `fallback`.

Either a country's mean mix of a year, from the data file that codecarbon ships (average, lifecycle; Our World in Data /
Ember), or a figure the user states with its basis and source.
"""

import difflib
import functools
import hashlib
import json
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.feeds.base import Answer
from carbonsched.model.grid import Basis, Kind, Reading, Source

_MIX: Final = "data/private_infra/global_energy_mix.json"


@functools.cache
def _country_mix() -> tuple[dict[str, dict[str, Any]], str]:
    # codecarbon's own DataSource loads this file and three CSVs with pandas, which alone would double the daemon
    raw = files("codecarbon").joinpath(_MIX).read_bytes()
    return json.loads(raw), hashlib.sha256(raw).hexdigest()


def country_mix(country: str, field: str) -> tuple[float, str, str]:
    """(g/kWh, what it is, SHA-256 of the file) for an ISO 3166 alpha-3 code. Raises InputError with the nearest code."""
    mix, sha256 = _country_mix()
    entry = mix.get(country.upper())
    if entry is None:
        names = {str(row["country_name"]).lower(): code for code, row in mix.items()}
        by_name = difflib.get_close_matches(country.lower(), list(names), n=1)
        close = [names[by_name[0]]] if by_name else difflib.get_close_matches(country.upper(), list(mix), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "write it like DEU, GBR or USA"
        raise InputError(
            field, f"{country!r} is not an ISO 3166 alpha-3 code that codecarbon has data for", hint
        )
    what = f"codecarbon, mean mix of {entry['country_name']} in {entry['year']}"
    return float(entry["carbon_intensity"]), what, sha256


class StaticFeed:
    """Answers one value for this year and the last, whatever the hour."""

    every_s = 3600.0
    local = True

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
        self.name, self.zone, self.basis, self.max_age_s = name, zone, basis, max_age_s
        self._clock, self._g_per_kwh = clock, g_per_kwh
        self._source = Source(
            provider=name,
            zone=zone,
            basis=basis,
            kind=Kind.FALLBACK,
            fetched_at=clock.now(),
            body_sha256=body_sha256,
            note=note,
        )

    def poll(self) -> Answer:
        year = self._clock.now().year
        return Answer(tuple(self._reading(y) for y in (year - 1, year)))

    def _reading(self, year: int) -> Reading:
        start, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        return Reading(start=start, end=end, g_per_kwh=self._g_per_kwh, source=self._source)

"""States what every feed of the site's own supply is told, what a kWh of it emits, and which of its readings are believed.

A supply is a share of the box's energy, 0…1, or power in kW that is held against the box's own. What a kWh of it emits is the
user's to say, with a source; of solar and wind the factors that `generation_mix` documents are taken. Of a battery nobody but
the user knows what filled it, of a contract nobody but the user what it buys: for those nothing is guessed.
"""

import math
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from carbonsched.errors import InputError
from carbonsched.feeds.base import Make, Site, SourceSettings, ValueFeed
from carbonsched.feeds.generation_mix import FACTORS, Plant
from carbonsched.feeds.plausibility import ABSURD_G_PER_KWH, Gates
from carbonsched.model.base import refusal
from carbonsched.model.grid import Basis, Source, SupplyReading, SupplyUnit

MOST_KW: Final = 1e6
"""A gigawatt: no site has more to give to a box."""
_GIVE: Final = "give what a kWh of it emits, like 41.0, and its source"


class SupplyKind(StrEnum):
    """What kind of supply it is.

    Example:
        >>> SupplyKind("solar") is SupplyKind.SOLAR
        True
    """

    SOLAR = "solar"
    WIND = "wind"
    BATTERY = "battery"
    CONTRACT = "contract"


_PLANTS: Final = {SupplyKind.SOLAR: Plant.SOLAR, SupplyKind.WIND: Plant.WIND_ONSHORE}


class SupplySettings(SourceSettings):
    """Keys of `[[supply]]` that every provider takes; a feed's own file adds its keys, their checks and `build`.

    Example::

        class SunSupplySettings(SupplySettings):
            provider: Literal["sun"]

            def build(self, site: Site) -> ValueFeed[SupplyReading]:
                return SunSupply(self, site, self.reader(site))
    """

    unit: SupplyUnit = SupplyUnit.SHARE
    """share: 0…1 of the box's energy. kw: power that the box may take, held against its own, PUE included."""
    kind: SupplyKind | None = None
    """What it is; of solar and wind the zone's basis then says what a kWh emits."""
    g_per_kwh: Annotated[float, Field(ge=0, le=ABSURD_G_PER_KWH)] | None = None
    """What a kWh of it emits, on the zone's basis; needs `source`. None: by `kind`."""
    source: str | None = None
    """Where g_per_kwh comes from."""

    @model_validator(mode="after")
    def _states_its_factor(self) -> Self:
        if self.source is not None and not self.source.strip():
            raise refusal("source", "is empty", "say where the figure comes from")
        if self.g_per_kwh is None and self.kind not in _PLANTS:
            what = f"of a {self.kind} is not known" if self.kind else "is missing"
            raise refusal("g_per_kwh", what, f'{_GIVE}, or set kind to "solar" or "wind"')
        if self.g_per_kwh is not None and self.source is None:
            raise refusal("source", "is missing", "say where g_per_kwh comes from")
        return self

    def build(self, site: Site) -> ValueFeed[SupplyReading]:
        """The feed. Raises InputError whose field is one of these keys, or a file."""
        raise NotImplementedError

    def factor(self, basis: Basis) -> tuple[float, str]:
        """(g/kWh, where it comes from). Raises InputError where the documented factors are of other bases."""
        if self.g_per_kwh is not None:
            return self.g_per_kwh, self.source or ""
        plant = _PLANTS[SupplyKind(self.kind or "")]
        if basis not in FACTORS:
            raise InputError("g_per_kwh", f"of {self.kind} is not known as {basis}", _GIVE)
        side = "direct" if basis is Basis.AVERAGE_DIRECT else "lifecycle"
        return FACTORS[basis].g_per_kwh[plant], f"{side}, IPCC AR5 A.III.2"

    def reader(self, site: Site) -> Make[SupplyReading]:
        """Makes readings of amounts, each with what it emits and on whose word."""
        g_per_kwh, word = self.factor(site.zone.basis)
        note = "; ".join(part for part in (self.kind, f"{g_per_kwh:g} g/kWh: {word}") if part)

        def make(
            start: datetime, end: datetime, value: float, source: Source, grid_start: datetime | None = None
        ) -> SupplyReading:
            said = "; ".join(part for part in (source.note, note) if part)
            return SupplyReading(
                start=start,
                end=end,
                amount=value,
                unit=self.unit,
                g_per_kwh=g_per_kwh,
                source=source.model_copy(update={"note": said}),
                grid_start=grid_start,
            )

        return make


def supply_gates() -> Gates[SupplyReading]:
    """A share lies between 0 and 1, a power between 0 and a gigawatt; both may leap: a cloud takes no time."""

    def refusal_of(reading: SupplyReading) -> str | None:
        share = reading.unit is SupplyUnit.SHARE
        most = 1.0 if share else MOST_KW
        at = f"{reading.start:%Y-%m-%dT%H:%MZ}"
        if not math.isfinite(reading.amount) or not 0 <= reading.amount <= most:
            wanted = "a share lies between 0 and 1" if share else f"a power lies between 0 and {MOST_KW:g} kW"
            return f"refused a supply of {reading.amount:g} {reading.unit} for {at}: {wanted}"
        if not math.isfinite(reading.g_per_kwh) or not 0 <= reading.g_per_kwh <= ABSURD_G_PER_KWH:
            wanted = f"an intensity lies between 0 and {ABSURD_G_PER_KWH:g}"
            return f"refused a supply of {reading.g_per_kwh:g} g/kWh for {at}: {wanted}"
        return None

    return Gates(refusal_of, lambda before, reading: None)

"""Answers a constant supply: what a contract covers, or what a plant beside the box gives day and night."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from carbonsched.feeds.base import Site
from carbonsched.feeds.constant import Constant
from carbonsched.feeds.supply.base import MOST_KW, SupplySettings
from carbonsched.model.base import refusal
from carbonsched.model.grid import Kind, Source, SupplyReading, SupplyUnit


class StaticSupplySettings(SupplySettings):
    """Keys of `[[supply]]` with provider = "static": `share` or `kw`, and always `source`.

    Example:
        >>> StaticSupplySettings(provider="static", share=0.6, kind="wind", source="contract 2026-17").share
        0.6
    """

    provider: Literal["static"]
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Of the box's energy."""
    kw: Annotated[float, Field(ge=0, le=MOST_KW, allow_inf_nan=False)] | None = None
    """Power that the box may take from it."""

    @model_validator(mode="before")
    @classmethod
    def _unit_by_key(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if (data.get("share") is None) == (data.get("kw") is None):
            problem = "is missing" if data.get("kw") is None else "stands beside kw"
            raise refusal("share", problem, "give either share, like 0.6, or kw")
        if data.get("source") is None:
            raise refusal("source", "is missing", "say which contract or plant it is")
        unit = SupplyUnit.SHARE if data.get("kw") is None else SupplyUnit.KW
        return {"unit": unit} | dict(data)

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if getattr(self, self.unit) is None:
            other = SupplyUnit.KW if self.unit is SupplyUnit.SHARE else SupplyUnit.SHARE
            raise refusal("unit", f"is {self.unit}, but {other} is given", "drop it: the key says it")
        return self

    def build(self, site: Site) -> Constant[SupplyReading]:
        source = Source(
            provider=self.shown_name,
            zone=site.zone.name,
            kind=Kind.STATIC,
            fetched_at=site.clock.now(),
            # beside a factor of ours; the user's own stands with the factor
            note=self.source or "" if self.g_per_kwh is None else "",
        )
        value = self.share if self.share is not None else self.kw or 0.0
        return Constant(site.clock, self.reader(site), value, source, self.max_age)

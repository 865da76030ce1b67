"""What the owner of a box states for reports, because no meter shows it: who and where, sensor errors, contracts, embodied emissions.

Every figure here is an input with a source; a report repeats both. What is not stated is unknown, and never taken for 0.
"""

import hashlib
import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from carbonsched.model.base import Doc, UtcTime, refusal

MACHINE_ID: Final = Path("/etc/machine-id")
_OURS: Final = b"carbonsched box"
Text = Annotated[str, Field(min_length=1, max_length=200)]
Share = Annotated[float, Field(ge=0, lt=1)]
Amount = Annotated[float, Field(ge=0, le=1e12)]


class BoxIdentity(Doc):
    """The box that rows and reports are of.

    Example:
        >>> BoxIdentity(name="trainer-07", machine=None).words
        'trainer-07'
    """

    name: str | None
    """As configured (`accounting.box`, else `ledger.box`)."""
    machine: str | None
    """A hash of the machine's id, which itself stays private; None: the machine has none."""

    @property
    def words(self) -> str:
        """For people."""
        machine = None if self.machine is None else f"machine {self.machine}"
        if self.name is None:
            return machine or "not known: no name is configured, and the machine has no id"
        return self.name if machine is None else f"{self.name} ({machine})"


def box_identity(name: str | None, machine_id: Path = MACHINE_ID) -> BoxIdentity:
    """Of this machine."""
    try:
        found = machine_id.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        found = ""
    digest = hmac.new(found.encode(), _OURS, hashlib.sha256).hexdigest()[:32] if found else None
    return BoxIdentity(name=name, machine=digest)


class Accounting(Doc):
    """`[accounting]`: what the owner of the box states for reports.

    Example:
        >>> Accounting(box="trainer-07", plug_factor=1.12, plug_source="PSU's 80 PLUS sheet").plug_factor
        1.12
    """

    organisation: Text | None = None
    """Who reports."""
    site: Text | None = None
    """Where the box is."""
    box: Text | None = None
    """The box's name in rows and reports; without it ledger.box, and the hash of the machine's id."""
    counter_error: Share = 0.05
    """Error of a board's sensor, as a share of what it reads, either way."""
    sampling_error: Share = 0.05
    """Additional error if the energy is power readings times time."""
    model_error: Share = 0.3
    """Error of energy that is modelled, as a CPU's by its load."""
    error_source: Text = (
        "assumed: NVML states ±5% for its power readings; arXiv 2312.02741 finds sensors that sample a quarter of the time; "
        "a model of a CPU's load was compared with no meter here"
    )
    plug_factor: Annotated[float, Field(ge=1, le=3)] | None = None
    """Energy at the box's plug ÷ that of the parts that are metered: losses of the power supply, fans, network, disks. It stands
    beside the account, not in it."""
    plug_source: Text | None = None
    residual_g_per_kwh: Annotated[float, Field(ge=0, le=5000)] | None = None
    """Residual mix, for energy that no contract and no certificate covers."""
    residual_source: Text | None = None
    embodied_kg: Amount | None = None
    """CO2e of making one board and its share of the box, as its owner counts it."""
    embodied_low_kg: Amount | None = None
    embodied_high_kg: Amount | None = None
    embodied_life_h: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Hours that a board is assumed to serve."""
    embodied_source: Text | None = None

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        for value, source in (
            ("plug_factor", "plug_source"),
            ("residual_g_per_kwh", "residual_source"),
            ("embodied_kg", "embodied_source"),
            ("embodied_kg", "embodied_life_h"),
        ):
            if getattr(self, value) is not None and getattr(self, source) is None:
                raise refusal(value, f"stands without {source}", f"add {source}: where it comes from")
        low, high = self.embodied_low_kg, self.embodied_high_kg
        if self.embodied_kg is not None and not (
            (low if low is not None else self.embodied_kg)
            <= self.embodied_kg
            <= (high if high is not None else self.embodied_kg)
        ):
            raise refusal("embodied_kg", "lies outside embodied_low_kg and embodied_high_kg", "fix the range")
        return self


class Contract(Doc):
    """One of `[[contracts]]`: electricity that was bought, or a certificate that was cancelled for it.

    Example:
        >>> Contract(name="wind PPA", start="2026-01-01T00:00:00Z", end="2027-01-01T00:00:00Z", g_per_kwh=0, renewable=True,
        ...     source="contract 4711").kwh is None
        True
    """

    name: Text
    start: UtcTime
    end: UtcTime
    g_per_kwh: Annotated[float, Field(ge=0, le=5000)]
    kwh: Amount | None = None
    """How much it covers in its time; None: all."""
    renewable: bool = False
    source: Text

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end <= self.start:
            raise refusal("end", "is not after start", "give a later time")
        return self

    @property
    def hourly(self) -> bool:
        """Whether it is for one hour at most, so that what it covers was matched by the hour."""
        return (self.end - self.start).total_seconds() <= 3600


class BaseModelCompute(Doc):
    """One of `[[base_models]]`: what training a base model took.

    Example:
        >>> BaseModelCompute(name="HuggingFaceTB/SmolLM2-135M", flop=1.6e21, source="6 · parameters · tokens").flop
        1.6e+21
    """

    name: Text
    """As jobs write `model.name_or_path`."""
    flop: Annotated[float, Field(gt=0, le=1e30)]
    source: Text


class Stated(Doc):
    """All that the config states for reports.

    Example:
        >>> Stated().accounting.counter_error
        0.05
    """

    accounting: Accounting = Accounting()
    contracts: tuple[Contract, ...] = ()
    base_models: tuple[BaseModelCompute, ...] = ()
    box: BoxIdentity = BoxIdentity(name=None, machine=None)

    @property
    def compute(self) -> Mapping[str, BaseModelCompute]:
        return {model.name: model for model in self.base_models}

"""Defines what every power meter offers: settings that build it, and the energy of each device since it was last asked."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

from carbonsched.clock import Clock
from carbonsched.model.energy import EnergyDelta
from carbonsched.power.peak_flops import PeakFlops
from carbonsched.settings import ProviderSettings


@dataclass(frozen=True, slots=True)
class Instance:
    """A part of a board that a process can have to itself: a MIG instance.

    Example:
        >>> Instance("MIG-1f2e", slices=2).slices
        2
    """

    id: str
    slices: int
    """Its share of the board's compute slices."""
    ours: bool = True
    """Jobs may be put there."""


@dataclass(frozen=True, slots=True)
class Device:
    """Something that is metered as a unit: a GPU, or the host's CPU and RAM.

    Example:
        >>> Device(id="host", kind="host", name="EPYC 7763", watts_limit=280.0).index
    """

    id: str
    """GPU UUID, or `host`."""
    kind: Literal["gpu", "host"]
    name: str
    index: int | None = None
    watts_limit: float | None = None
    """Rated upper power, for priors and leases."""
    idle_w: float | None = None
    """For a host: its idle power by the meter's model. None: the lowest power seen."""
    memory_bytes: int | None = None
    split: bool = False
    """In MIG mode only instances can train, and the energy is that of all of them together."""
    instances: tuple[Instance, ...] = ()
    peak_flops: PeakFlops | None = None
    """Rated, for priors. None: unknown."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the ledger's account of a device ends: a restarted daemon continues from there.

    Example::

        meter.resume({"GPU-1": Mark(at=ended, counter_mj=1_000, counter_epoch="boot:0", power_w=90.0)})
    """

    at: datetime
    counter_mj: int | None
    counter_epoch: str
    power_w: float | None
    blind_from: datetime | None = None
    """Since when it could not be read, if the account ends with such a time."""
    least_w: float | None = None
    """The lowest mean power of a row by this counter; of a host, which has none, of a row since it booted."""


class Meter(Protocol):
    """Reads the energy of some devices.

    Example::

        meter.resume(ledger.marks())
        joules = sum(delta.energy_mj or 0 for delta in meter.read()) / 1000
    """

    @property
    def devices(self) -> tuple[Device, ...]:
        """The current devices: a board that responds late is added."""

    def resume(self, marks: dict[str, Mark]) -> None:
        """Continue from the ledger's last rows, so that the first `read` covers the time without a daemon."""

    def read(self) -> tuple[EnergyDelta, ...]:
        """One delta per device since the last call; none at a device's very first reading. Never raises if a device fails: its delta is
        then `unavailable`, null, with the reason."""

    def close(self) -> None:
        """Release the driver; the meter is not read again."""


@runtime_checkable
class KnowsOccupants(Protocol):
    """A meter that can also tell who else uses a board.

    Example::

        why = meter.occupant("GPU-1", mine=lambda pid: pid in ours) if isinstance(meter, KnowsOccupants) else None
    """

    def occupant(self, board: str, mine: Callable[[int], bool], *, memory: bool = True) -> str | None:
        """A process that is not `mine` (asked by pid); with `memory` also memory that no process explains. None: nobody."""


class MeterSettings(ProviderSettings):
    """What a meter can be told in `[power]`; the meter's own file adds its keys, their checks and `build`.

    Example::

        class PduSettings(MeterSettings):
            provider: Literal["pdu"] = "pdu"
            url: str

            def build(self, clock: Clock) -> Meter:
                return PduMeter(self.url, clock)
    """

    def build(self, clock: Clock) -> Meter | None:
        """The meter; None where there is nothing to meter and the config allows that.

        Raises InputError whose field is one of these keys, or a file; PowerError where a device must answer and does not.
        """
        raise NotImplementedError

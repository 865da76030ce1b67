"""What every power meter offers: the energy of each of its devices since it was last asked."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from carbonsched.model.energy import EnergyDelta


@dataclass(frozen=True, slots=True)
class Device:
    """Something that is metered as one: a GPU, or the host's CPU and RAM."""

    id: str
    """GPU UUID, or `host`."""
    kind: Literal["gpu", "host"]
    name: str
    index: int | None = None
    watts_limit: float | None = None
    """Rated upper power, for priors and leases."""
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the ledger's account of a device ends: what a restarted daemon goes on from."""

    at: datetime
    counter_mj: int | None
    counter_epoch: str
    power_w: float | None


class Meter(Protocol):
    devices: tuple[Device, ...]

    def resume(self, marks: dict[str, Mark]) -> None:
        """Go on from the ledger's last rows, so that the first `read` bridges the time nobody was watching."""

    def read(self) -> tuple[EnergyDelta, ...]:
        """One delta a device since the last call; none for a device on its very first reading.

        Never raises for a device that fails: its delta is `unavailable`, null, with the reason.
        """

    def close(self) -> None: ...

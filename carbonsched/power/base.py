"""What every power meter offers: the energy of each of its boards since it was last asked."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from carbonsched.model.energy import EnergyDelta


@dataclass(frozen=True, slots=True)
class Board:
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
    """Where the ledger's account of a board ends: what a restarted daemon goes on from."""

    at: datetime
    counter_mj: int | None
    counter_epoch: str
    power_w: float | None


class Meter(Protocol):
    boards: tuple[Board, ...]

    def resume(self, marks: dict[str, Mark]) -> None:
        """Go on from the ledger's last rows, so that the first `read` bridges the time nobody was watching."""

    def read(self) -> tuple[EnergyDelta, ...]:
        """One delta a board since the last call; none for a board on its very first reading.

        Never raises for a board that fails: its delta is `unavailable`, null, with the reason.
        """

    def close(self) -> None: ...

"""Reads several meters as one: the GPUs' and the host's."""

from collections.abc import Callable, Sequence

from carbonsched.model.energy import EnergyDelta
from carbonsched.power.base import Device, KnowsOccupants, Mark, Meter


class CombinedMeter:
    """All devices of its meters.

    Example::

        meter = CombinedMeter([NvmlMeter(clock), HostMeter(clock)])
        ids = [device.id for device in meter.devices]
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = tuple(meters)

    @property
    def devices(self) -> tuple[Device, ...]:
        """Of now: a board may answer late."""
        return tuple(device for meter in self._meters for device in meter.devices)

    def occupant(self, board: str, mine: Callable[[int], bool], *, memory: bool = True) -> str | None:
        """See `KnowsOccupants`; of a meter that cannot tell: None."""
        for meter in self._meters:
            if (
                isinstance(meter, KnowsOccupants)
                and (found := meter.occupant(board, mine, memory=memory)) is not None
            ):
                return found
        return None

    def resume(self, marks: dict[str, Mark]) -> None:
        for meter in self._meters:
            meter.resume(marks)

    def read(self) -> tuple[EnergyDelta, ...]:
        return tuple(delta for meter in self._meters for delta in meter.read())

    def close(self) -> None:
        for meter in self._meters:
            meter.close()

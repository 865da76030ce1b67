"""Reads several meters as one: the GPUs' and the host's."""

from collections.abc import Sequence

from carbonsched.model.energy import EnergyDelta
from carbonsched.power.base import Mark, Meter


class CombinedMeter:
    """All devices of its meters.

    Example::

        meter = CombinedMeter([NvmlMeter(clock), HostMeter(clock)])
        ids = [device.id for device in meter.devices]
    """

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = tuple(meters)
        self.devices = tuple(device for meter in self._meters for device in meter.devices)

    def resume(self, marks: dict[str, Mark]) -> None:
        for meter in self._meters:
            meter.resume(marks)

    def read(self) -> tuple[EnergyDelta, ...]:
        return tuple(delta for meter in self._meters for delta in meter.read())

    def close(self) -> None:
        for meter in self._meters:
            meter.close()

"""Builds the meters that the config asks for, as one."""

from collections.abc import Iterable

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.power.base import Meter, MeterSettings
from carbonsched.power.combined import CombinedMeter


def build_meter(settings: Iterable[MeterSettings], clock: Clock) -> Meter:
    """Raises InputError where nothing is metered, PowerError where `gpu = "nvml"` finds no device."""
    meters = [meter for each in settings if (meter := each.build(clock)) is not None]
    if not meters:
        raise InputError(
            "power.host", "nothing is metered: no GPU is and the host is not", 'set it to "auto"'
        )
    return CombinedMeter(meters)

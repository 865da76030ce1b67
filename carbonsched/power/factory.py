"""Builds the meters that the config asks for, and joins them into one."""

from collections.abc import Iterable

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.power.base import Meter, MeterSettings
from carbonsched.power.combined import CombinedMeter
from carbonsched.settings import build_error


def build_meter(settings: Iterable[MeterSettings], clock: Clock) -> Meter:
    """One meter of all.

    Raises InputError where nothing is metered, or one device twice, PowerError where `gpu = "nvml"` finds no device.
    """
    meters: list[Meter] = []
    for each in settings:
        try:
            meter = each.build(clock)
        except Exception as e:
            raise build_error(e, each, "power") from e
        if meter is not None:
            meters.append(meter)
    if not any(meter.devices for meter in meters):
        raise InputError(
            "power.host",
            "nothing is metered: no GPU is and the host is not",
            "set it to \"auto\", and pip install 'carbonsched[codecarbon]' where it is",
        )
    seen: set[str] = set()
    for device in (device for meter in meters for device in meter.devices):
        if device.id in seen:  # both would be charged: the ledger would hold its energy twice
            raise InputError("power.host", f"two meters read device {device.id!r}", "drop one of them")
        seen.add(device.id)
    return CombinedMeter(meters)

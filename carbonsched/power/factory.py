"""The meters that the config asks for, as one."""

import logging
from pathlib import Path

from carbonsched.clock import Clock
from carbonsched.config import PowerConfig
from carbonsched.errors import InputError, PowerError
from carbonsched.power.base import Meter
from carbonsched.power.combined import CombinedMeter
from carbonsched.power.replay import ReplayMeter

log = logging.getLogger(__name__)


def build_meter(config: PowerConfig, clock: Clock) -> Meter:
    """Raises InputError where the config does not fit together, PowerError where `gpu = "nvml"` finds no device."""
    if config.replay_file is not None and config.gpu != "replay":
        raise InputError("power.replay_file", 'is read only with power.gpu = "replay"', "set that or drop it")
    meters: list[Meter] = []
    match config.gpu:
        case "replay":
            if config.replay_file is None:
                raise InputError("power.replay_file", "is missing", "give a CSV of seconds,watts")
            meters.append(ReplayMeter(Path(config.replay_file), clock))
        case "nvml":
            meters.append(_nvml(clock))
        case "auto":
            try:
                meters.append(_nvml(clock))
            except PowerError as e:
                log.info("no GPU is metered: %s", e)
        case "none":
            pass
    if config.host != "none":
        # the vendors' libraries are loaded only where they are asked for: they are most of the daemon's memory
        from carbonsched.power.host import HostMeter

        meters.append(HostMeter(clock))
    if not meters:
        raise InputError(
            "power.host", "nothing is metered: no GPU is and the host is not", 'set it to "auto"'
        )
    return CombinedMeter(meters)


def _nvml(clock: Clock) -> Meter:
    from carbonsched.power.nvml import NvmlMeter

    return NvmlMeter(clock)

"""Declares the settings of the NVML meter. Apart from the meter, so that reading a config does not load pynvml."""

import logging
from typing import Literal

from carbonsched.clock import Clock
from carbonsched.errors import PowerError
from carbonsched.power.base import Meter, MeterSettings

log = logging.getLogger(__name__)


class NvmlSettings(MeterSettings):
    """`[power]` with gpu = "nvml", which must find a device, or "auto", which takes what is there.

    Example:
        >>> NvmlSettings(provider="auto").provider
        'auto'
    """

    provider: Literal["auto", "nvml"]

    def build(self, clock: Clock) -> Meter | None:
        """Raises PowerError where "nvml" finds no device; "auto" answers None there."""
        from carbonsched.power.nvml_meter import NvmlMeter

        try:
            return NvmlMeter(clock)
        except PowerError as e:
            if self.provider == "nvml":
                raise
            log.info("no GPU is metered: %s", e)
            return None

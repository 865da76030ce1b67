"""Declares the settings of the host's meter. Apart from the meter, so that reading a config does not load codecarbon."""

from typing import Literal

from carbonsched.clock import Clock
from carbonsched.power.base import Meter, MeterSettings


class HostSettings(MeterSettings):
    """`[power]` with host = "codecarbon", or "auto", which is the same.

    Example:
        >>> HostSettings(provider="auto").provider
        'auto'
    """

    provider: Literal["auto", "codecarbon"]

    def build(self, clock: Clock) -> Meter:
        from carbonsched.power.host_meter import HostMeter

        return HostMeter(clock)

"""Declares the settings of the host's meter. Apart from the meter, so that reading a config does not load codecarbon."""

import logging
from importlib.util import find_spec
from typing import Literal

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.power.base import Meter, MeterSettings

log = logging.getLogger(__name__)


class HostSettings(MeterSettings):
    """`[power]` with host = "codecarbon", or "auto", which is the same where codecarbon is installed and nothing where it is not.

    Example:
        >>> HostSettings(provider="auto").provider
        'auto'
    """

    provider: Literal["auto", "codecarbon"]

    def build(self, clock: Clock) -> Meter | None:
        if find_spec("codecarbon") is None:  # finds the package and does not import it
            hint = "pip install 'carbonsched[codecarbon]'"
            if self.provider == "codecarbon":
                raise InputError("power.host", "codecarbon is not installed", hint)
            log.warning("CPU and memory are not metered: codecarbon is not installed (%s)", hint)
            return None
        from carbonsched.power.host_meter import HostMeter

        return HostMeter(clock)

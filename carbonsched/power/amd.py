"""Declares the settings of the AMD meter. Apart from the meter, so that reading a config does not load AMD's library."""

from typing import Annotated, Literal

from pydantic import Field

from carbonsched.clock import Clock
from carbonsched.power.base import Meter, MeterSettings
from carbonsched.power.nvml import BoardName


class AmdSettings(MeterSettings):
    """`[power]` with gpu = "amd".

    Example:
        >>> AmdSettings(provider="amd", boards=[0]).sample_hz
        10.0
    """

    provider: Literal["amd"]
    boards: tuple[BoardName, ...] = ()
    """As NVML's; indices are AMD SMI's."""
    sample_hz: Annotated[float, Field(ge=1, le=100)] = 10.0
    """As NVML's."""

    def build(self, clock: Clock) -> Meter:
        """Raises PowerError where no board answers, InputError where `boards` names none of those that are here."""
        from carbonsched.power.amd_driver import AmdDriver
        from carbonsched.power.board_meter import BoardMeter

        return BoardMeter(AmdDriver(), clock, boards=self.boards, sample_hz=self.sample_hz)

"""Declares the settings of the Intel meter."""

from typing import Literal

from carbonsched.clock import Clock
from carbonsched.power.base import Meter, MeterSettings
from carbonsched.power.nvml import BoardName


class IntelSettings(MeterSettings):
    """`[power]` with gpu = "intel".

    Example:
        >>> IntelSettings(provider="intel").boards
        ()
    """

    provider: Literal["intel"]
    boards: tuple[BoardName, ...] = ()
    """As NVML's; indices are in the order of the PCI bus, and a board's id is made of its PCI address."""

    def build(self, clock: Clock) -> Meter:
        """Raises PowerError where no board answers, InputError where `boards` names none of those that are here."""
        from carbonsched.power.board_meter import BoardMeter
        from carbonsched.power.intel_driver import IntelDriver

        return BoardMeter(IntelDriver(), clock, boards=self.boards)

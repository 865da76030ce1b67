"""Declares the settings of the NVML meter. Apart from the meter, so that reading a config does not load pynvml."""

from typing import Annotated, Literal

from pydantic import Field, StrictInt, StrictStr

from carbonsched.clock import Clock
from carbonsched.power.base import Meter, MeterSettings

BoardName = Annotated[StrictInt, Field(ge=0)] | Annotated[StrictStr, Field(min_length=1)]


class NvmlSettings(MeterSettings):
    """`[power]` with gpu = "nvml", which must find a device, or "auto", which takes what is there and waits for the rest.

    Example:
        >>> NvmlSettings(provider="auto", boards=[0, "GPU-1f2e", "NVIDIA A100-SXM4-80GB"]).boards[0]
        0
    """

    provider: Literal["auto", "nvml"]
    boards: tuple[BoardName, ...] = ()
    """Which boards are ours: indices as in nvidia-smi, UUIDs or their beginnings, names of products. None named: all."""

    sample_hz: Annotated[float, Field(ge=1, le=100)] = 10.0
    """Readings of power a second, of boards whose energy is integrated from it: those without an energy counter that runs."""

    def build(self, clock: Clock) -> Meter:
        """Raises PowerError where "nvml" finds no device, InputError where `boards` names none of those that are here."""
        from carbonsched.power.nvml_meter import NvmlMeter

        return NvmlMeter(
            clock, boards=self.boards, must_answer=self.provider == "nvml", sample_hz=self.sample_hz
        )

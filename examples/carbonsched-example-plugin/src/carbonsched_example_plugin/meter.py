"""A power meter that reads a hwmon sensor, e.g. the supply of a server: microwatts in a file, no counter.

[power]
host = "example-hwmon"
sensor = "/sys/class/hwmon/hwmon2/power1_input"
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from carbonsched.clock import Clock
from carbonsched.errors import InputError
from carbonsched.model.base import LocalPath
from carbonsched.model.energy import EnergyDelta
from carbonsched.power.base import Device, Mark, Meter, MeterSettings
from carbonsched.power.boot_id import boot_id
from carbonsched.power.counter import DeviceCounter
from carbonsched.power.sample import Sample


class HwmonSettings(MeterSettings):
    """Keys of `[power]` where `gpu` or `host` is "example-hwmon"."""

    provider: Literal["example-hwmon"]
    sensor: LocalPath
    """File with microwatts, e.g. /sys/class/hwmon/hwmon2/power1_input."""
    rated_w: Annotated[float, Field(gt=0)] | None = None
    """Power that the device never passes; leases are computed with it until it was watched for a while."""

    def build(self, clock: Clock) -> Meter:
        if not Path(self.sensor).is_file():
            raise InputError("sensor", f"there is no file {self.sensor}", "see /sys/class/hwmon")
        return HwmonMeter(self, clock)


class HwmonMeter:
    """One device, the host. A sensor has no counter, so its energy is power times time and says so."""

    def __init__(self, settings: HwmonSettings, clock: Clock) -> None:
        self._path, self._clock = Path(settings.sensor), clock
        self.devices: tuple[Device, ...] = (
            Device(id="host", kind="host", name="hwmon", watts_limit=settings.rated_w),
        )
        # everything that can go wrong between two samples (restarts, clock steps, absences) is decided in there
        self._counter = DeviceCounter("host", "example-hwmon", boot_id(), watts_limit=settings.rated_w)

    def resume(self, marks: dict[str, Mark]) -> None:
        if mark := marks.get("host"):
            self._counter.resume(mark)

    def read(self) -> tuple[EnergyDelta, ...]:
        now, monotonic_s = self._clock.now(), self._clock.monotonic()
        try:
            sample = Sample(now, monotonic_s, power_w=int(self._path.read_text()) / 1e6)
        except (OSError, ValueError) as e:  # a meter never raises: what it cannot read is unknown, not 0
            sample = Sample(now, monotonic_s, error=f"the sensor could not be read: {e}")
        delta = self._counter.add(sample)
        return () if delta is None else (delta,)

    def close(self) -> None:
        """Nothing is held open."""

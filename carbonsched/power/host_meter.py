"""Meters CPU and RAM of the box by codecarbon's hardware classes, without its tracker, lock file and pandas.

Where RAPL can be read the CPU is measured (package counters, wrap-aware), else it is codecarbon's model: rated power
(TDP) × (0.1 + 0.9·load³), load of the whole box since the last look. RAM is codecarbon's model of the installed
memory. One part at least is a model, so the energy is `estimated` and `meter` says how. No counter goes on while the
daemon is away.
"""

import csv
import logging
import os
from importlib.resources import files
from pathlib import Path
from typing import Final

from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE, TDP, is_rapl_available
from codecarbon.core.units import Energy
from codecarbon.core.util import detect_cpu_model
from codecarbon.external.hardware import CPU
from codecarbon.external.ram import RAM

from carbonsched.clock import Clock
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power.base import Device, Mark
from carbonsched.power.boot import boot_id
from carbonsched.power.counter import DeviceCounter, Sample

RAPL_DIR: Final = "/sys/class/powercap/intel-rapl/subsystem"
_SETTLE_S: Final = 0.25
"""CPU load over less than this says nothing."""

# what codecarbon would say at every start, `Device.name` and `meter` say in every row
logging.getLogger("codecarbon").setLevel(logging.ERROR)


class HostMeter:
    """One device, `host`. A read takes no measurable time and never sleeps.

    Example::

        meter = HostMeter(SystemClock())
        how = meter.devices[0].name
    """

    def __init__(self, clock: Clock, rapl_dir: str = RAPL_DIR, life: str | None = None) -> None:
        self._clock = clock
        model = cpu_model()
        tdp, known = rated_power(model)
        rapl = is_rapl_available(rapl_dir)
        self._cpu = CPU("", "intel_rapl" if rapl else "cpu_load", model, tdp, rapl_dir=rapl_dir)
        self._cpu.start()
        self._rapl = rapl
        self._ram_w = float(RAM().total_power().W)
        self._looked_s = clock.awake()
        how = "rapl" if rapl else f"cpu_load,tdp={tdp:g}W{'' if known else ' assumed'}"
        self.devices: tuple[Device, ...] = (
            Device(
                id="host",
                kind="host",
                name=model or "CPU",
                watts_limit=tdp + self._ram_w,
                memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            ),
        )
        self._counter = DeviceCounter(
            "host",
            f"codecarbon:{how}+ram={self._ram_w:g}W",
            life or boot_id(),
            power_method=EnergyMethod.ESTIMATED,
            power_is_mean=True,
            counter_survives=False,
        )

    def resume(self, marks: dict[str, Mark]) -> None:
        if mark := marks.get("host"):
            self._counter.resume(mark)

    def read(self) -> tuple[EnergyDelta, ...]:
        now, monotonic, awake_s = self._clock.now(), self._clock.monotonic(), self._clock.awake()
        elapsed = awake_s - self._looked_s
        if elapsed < _SETTLE_S:
            return ()
        self._looked_s = awake_s
        try:
            watts = self._cpu_watts(elapsed) + self._ram_w
            sample = Sample(now, monotonic, power_w=watts, awake_s=awake_s)
        except Exception as e:  # codecarbon raises what the kernel's files make them raise
            sample = Sample(now, monotonic, error=f"the host's load could not be read: {e}", awake_s=awake_s)
        delta = self._counter.add(sample)
        return () if delta is None else (delta,)

    def close(self) -> None:
        """Nothing is held open."""

    def _cpu_watts(self, elapsed: float) -> float:
        """Mean since the last look."""
        if not self._rapl:
            return float(self._cpu.total_power().W)
        _, energy = self._cpu.measure_power_and_energy(elapsed)
        return float(energy.kWh / Energy.JOULES_TO_KWH) / elapsed


def cpu_model() -> str:
    """The processor's name as the kernel gives it; codecarbon's own, slower way where it gives none (ARM)."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return str(detect_cpu_model() or "")


def rated_power(model: str) -> tuple[float, bool]:
    """(watts, whether the model is known) by codecarbon's table and its matching, read without pandas.

    An unknown model gets codecarbon's default of 4 W a hardware thread.
    """
    table = files("codecarbon").joinpath("data/hardware/cpu_power.csv").read_text(encoding="utf-8")
    tdp = {row["Name"]: row["TDP"] for row in csv.DictReader(table.splitlines())}
    # TDP() itself loads the table with pandas, 70 MB for one look-up; its matching takes any column of names
    match = TDP._get_matching_cpu(TDP.__new__(TDP), model, {"Name": list(tdp)}) if model else None
    if match is not None:
        return float(tdp[match]), True
    return float((os.cpu_count() or 1) * DEFAULT_POWER_PER_CORE), False

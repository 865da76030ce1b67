"""Meters CPU and RAM of the box by RAPL or codecarbon's models, without its tracker, lock file and pandas.

If RAPL can be read, the CPU is measured (package counters; codecarbon's reader handles their wraps); otherwise codecarbon's model is used:
rated power (TDP) × (0.1 + 0.9·load³), with the load of the whole box since the last reading. RAM is measured if RAPL counts it (`dram`),
otherwise modelled by the installed memory. These counters do not cover all of the host, so its energy is `estimated` in any case, and
`meter` says how. No counter goes on while the daemon is away.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from carbonsched.clock import Clock
from carbonsched.errors import PowerError
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power import host_model
from carbonsched.power.base import Device, Mark
from carbonsched.power.boot_id import boot_id
from carbonsched.power.counter import DeviceCounter
from carbonsched.power.host_model import RAPL_DIR, HostModel
from carbonsched.power.rapl_dram import DramCounters
from carbonsched.power.sample import Sample

_SETTLE_S: Final = 0.25
"""CPU load over a shorter time is not meaningful."""
_ASKED_S: Final = 120.0
"""Seconds to wait for codecarbon's answer: it may be loaded from a slow disk."""
_STAT: Final = Path("/proc/stat")
_TIMES: Final = 8
"""Columns of CPU time; the later ones, for guests, are included in the first two."""
_IDLE: Final = (3, 4)
"""Columns of idle time: idle, and waiting for a disk."""

IDLE_LOAD: Final = 0.1
"""Share of its rated power that an idle processor draws in codecarbon's model."""

Watts = Callable[[float], float]
"""Returns the mean power since the last call, which was so many seconds ago."""


class HostMeter:
    """One device, `host`. A read takes no measurable time and never sleeps.

    Example::

        meter = HostMeter(SystemClock())
        how = meter.devices[0].name
    """

    def __init__(self, clock: Clock, rapl_dir: str = RAPL_DIR, life: str | None = None) -> None:
        """Raises PowerError if codecarbon does not answer."""
        self._clock = clock
        model = ask_codecarbon(rapl_dir)
        self._cpu_watts: Watts = rapl_watts(model, rapl_dir) if model.rapl else LoadModel(model.tdp_w)
        dram = DramCounters.of(rapl_dir) if model.rapl else None
        self._ram_watts: Watts = dram.watts if dram is not None else lambda elapsed_s: model.ram_w
        self._looked_s, self._begun = clock.awake(), False
        how = (
            "rapl" if model.rapl else f"cpu_load,tdp={model.tdp_w:g}W{'' if model.tdp_known else ' assumed'}"
        )
        self.devices: tuple[Device, ...] = (
            Device(
                id="host",
                kind="host",
                name=model.cpu or "CPU",
                watts_limit=model.tdp_w + model.ram_w,
                idle_w=None if model.rapl else model.tdp_w * IDLE_LOAD + model.ram_w,
                memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            ),
        )
        self._counter = DeviceCounter(
            "host",
            f"codecarbon:{how}+dram" if dram is not None else f"codecarbon:{how}+ram={model.ram_w:g}W",
            life or boot_id(),
            power_method=EnergyMethod.ESTIMATED,
            power_is_mean=True,
            counter_survives=False,
        )

    def resume(self, marks: dict[str, Mark]) -> None:
        if mark := marks.get("host"):
            self._counter.resume(mark)
            self._begun = True

    def read(self) -> tuple[EnergyDelta, ...]:
        now, monotonic, awake_s = self._clock.now(), self._clock.monotonic(), self._clock.awake()
        elapsed = awake_s - self._looked_s
        # only the time of the very first reading counts: energy is reported from there on
        if elapsed < _SETTLE_S and (self._begun or elapsed <= 0):
            return ()
        self._begun = True
        self._looked_s = awake_s
        try:
            watts = self._cpu_watts(elapsed) + self._ram_watts(elapsed)
            sample = Sample(now, monotonic, power_w=watts, awake_s=awake_s)
        except Exception as e:  # codecarbon passes on whatever reading the kernel's files raises
            sample = Sample(now, monotonic, error=f"the host's load could not be read: {e}", awake_s=awake_s)
        delta = self._counter.add(sample)
        return () if delta is None else (delta,)

    def close(self) -> None:
        """Nothing is held open."""


class LoadModel:
    """codecarbon's model of a processor without counters: power by the load of the whole box since the last call.

    Example::

        watts = LoadModel(tdp_w=280.0)(elapsed_s)
    """

    def __init__(self, tdp_w: float) -> None:
        self._tdp_w = tdp_w
        self._before = _busy_and_all()

    def __call__(self, elapsed_s: float) -> float:
        """Raises OSError, ValueError if the kernel does not report it."""
        (busy, every), before = _busy_and_all(), self._before
        self._before = busy, every
        passed = every - before[1]
        load = min(max((busy - before[0]) / passed, 0.0), 1.0) if passed > 0 else 0.0
        return self._tdp_w * (IDLE_LOAD + (1 - IDLE_LOAD) * load**3)


def rapl_watts(model: HostModel, rapl_dir: str) -> Watts:
    """By codecarbon's reader of RAPL, which handles counters that wrap, and those that list one processor twice."""
    from codecarbon.core.units import Energy
    from codecarbon.external.hardware import CPU

    cpu = CPU("", "intel_rapl", model.cpu, model.tdp_w, rapl_dir=rapl_dir)
    cpu.start()

    def watts(elapsed_s: float) -> float:
        _, energy = cpu.measure_power_and_energy(elapsed_s)
        return float(energy.kWh / Energy.JOULES_TO_KWH) / elapsed_s

    return watts


def ask_codecarbon(rapl_dir: str) -> HostModel:
    """What codecarbon detects on the box, by a separate process. Raises PowerError if it does not answer."""
    program = [sys.executable, "-P", host_model.__file__, rapl_dir]
    try:
        done = subprocess.run(program, capture_output=True, text=True, timeout=_ASKED_S, check=False)
        return HostModel(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired as e:
        raise PowerError(f"codecarbon did not say in {_ASKED_S:.0f} s what this box is") from e
    except (OSError, ValueError, TypeError, IndexError) as e:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1] if isinstance(e, IndexError) else str(e)
        raise PowerError(f"codecarbon could not say what this box is: {said}") from e


def _busy_and_all() -> tuple[int, int]:
    """(busy, total) time of the box's processors since boot, in clock ticks."""
    with _STAT.open("rb") as file:
        times = [int(each) for each in file.readline().split()[1 : 1 + _TIMES]]
    every = sum(times)
    return every - sum(times[column] for column in _IDLE), every

"""Measures the joules of training: by the daemon's NVML reader where there is a GPU, else by an estimate that says so.

Without a GPU: rated power of a hardware thread (codecarbon's table, its default of 4 W where the processor is unknown) × the
threads used × seconds. That is time in other units, good for a comparison on one machine and no measurement.
"""

import os
import threading
from types import TracebackType
from typing import Self

from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE

from carbonsched.clock import SystemClock
from carbonsched.errors import PowerError
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power.nvml_meter import NvmlMeter

_SAMPLE_S = 0.2

Span = tuple[float, float]
"""Start and end, seconds since 1970."""


class BenchMeter:
    """Samples the GPU that `CUDA_VISIBLE_DEVICES` names first (else GPU 0) while the block runs.

    Example::

        with BenchMeter(threads=2) as meter:
            start = time.time()
            train()
            joules, method = meter.joules([(start, time.time())])
    """

    def __init__(self, threads: int | None) -> None:
        """threads: those that train, for the estimate; None: all that this process may use."""
        self._threads = threads or len(os.sched_getaffinity(0))
        self._nvml: NvmlMeter | None = None
        self._device = ""
        self._deltas: list[EnergyDelta] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        try:
            meter = NvmlMeter(SystemClock(), life="bench")
        except PowerError:  # no driver or no GPU: the labelled estimate
            return self
        named = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
        device = next((d for d in meter.devices if named in (d.id, str(d.index))), None)
        if device is None:
            meter.close()
            return self
        self._nvml, self._device = meter, device.id
        self._sample(meter)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._nvml is not None:
            self._thread.join()
            self._nvml.close()

    def joules(self, spans: list[Span]) -> tuple[float | None, str]:
        """Joules over `spans`, which have ended, and the method; None where the device could not be read meanwhile."""
        if self._nvml is None:
            watts = DEFAULT_POWER_PER_CORE * self._threads
            seconds = sum(end - start for start, end in spans)
            return watts * seconds, f"estimated: {DEFAULT_POWER_PER_CORE:g} W per thread × {self._threads}"
        self._sample(self._nvml)
        millijoules, methods = 0.0, set()
        for delta in self._deltas:
            share = sum(_overlap(delta, span) for span in spans)
            if share == 0:
                continue
            if delta.energy_mj is None:
                return None, f"unknown: {delta.reason}"
            methods.add(delta.method)
            millijoules += delta.energy_mj * share
        counted = methods <= {EnergyMethod.COUNTER}
        return millijoules / 1e3, "counter" if counted else "estimated: power × time"

    def _run(self) -> None:
        while self._nvml is not None and not self._ended.wait(_SAMPLE_S):
            self._sample(self._nvml)

    def _sample(self, meter: NvmlMeter) -> None:
        with self._lock:
            self._deltas += [delta for delta in meter.read() if delta.device == self._device]


def _overlap(delta: EnergyDelta, span: Span) -> float:
    """The share of `delta`'s time that lies in `span`."""
    start, end = delta.start.timestamp(), delta.end.timestamp()
    return max(0.0, min(end, span[1]) - max(start, span[0])) / (end - start)

"""Measures the joules of training: by the daemon's NVML reader on a GPU, otherwise by an estimate that is labelled as one.

The run itself reports the UUID of its board: an index may mean different boards to CUDA and NVML, and a run may have fallen back to the
CPU. On a CPU the estimate is the rated power of a hardware thread (codecarbon's table; 4 W if the processor is unknown) × threads used ×
seconds. That is time in other units: good for comparisons on one machine, but no measurement.
"""

import os
import threading
from types import TracebackType
from typing import Self

from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE

from carbonsched.clock import SystemClock
from carbonsched.errors import PowerError
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.model.protocol import Started
from carbonsched.power.nvml_meter import NvmlMeter

_SAMPLE_S = 0.2

Span = tuple[float, float]
"""Start and end, seconds since 1970."""


class BenchMeter:
    """Samples every GPU inside the block.

    Example::

        with BenchMeter(threads=2) as meter:
            start = time.time()
            started = train()
            joules, method = meter.joules([(start, time.time())], started)
    """

    def __init__(self, threads: int | None) -> None:
        """threads: the training threads, for the estimate; None: all that this process may use."""
        self._threads = threads or len(os.sched_getaffinity(0))
        self._nvml: NvmlMeter | None = None
        self._why_not = ""
        self._deltas: list[EnergyDelta] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        try:
            self._nvml = NvmlMeter(SystemClock(), life="bench")
        except PowerError as e:  # no driver or no GPU; matters only if a run reports a board
            self._why_not = str(e)
            return self
        self._sample(self._nvml)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._nvml is not None:
            self._thread.join()
            self._nvml.close()

    def joules(self, spans: list[Span], started: Started | None) -> tuple[float | None, str]:
        """Joules over `spans`, which have ended, and the method; None with the reason if unknown. started: what the run reported of itself;
        None: it ran on the CPU."""
        if started is None or (started.gpu_uuid is None and started.device == "cpu"):
            watts = DEFAULT_POWER_PER_CORE * self._threads
            seconds = sum(end - start for start, end in spans)
            return watts * seconds, f"estimated: {DEFAULT_POWER_PER_CORE:g} W per thread × {self._threads}"
        if self._nvml is None:
            return None, f"unknown: it ran on {started.gpu_uuid or started.device}, {self._why_not}"
        found = self._find(self._nvml, started.gpu_uuid)
        if found is None:
            return None, f"unknown: NVML shows no board {started.gpu_uuid or started.device}"
        device, share = found
        self._sample(self._nvml)
        return self._sum(device, share, spans)

    def _find(self, meter: NvmlMeter, reported: str | None) -> tuple[str, float] | None:
        """(the board by NVML's name, the run's part of it): a MIG instance has its share of the slices."""
        boards = meter.devices
        if reported is None:  # this torch reports no UUID; with one board there is no doubt
            return (boards[0].id, 1.0) if len(boards) == 1 and not boards[0].split else None
        for board in boards:
            if _digits(board.id) == _digits(reported):
                return board.id, 1.0
            slices = sum(instance.slices for instance in board.instances)
            for instance in board.instances:
                if _digits(instance.id) == _digits(reported):
                    return board.id, instance.slices / slices
        return None

    def _sum(self, device: str, share: float, spans: list[Span]) -> tuple[float | None, str]:
        millijoules, methods = 0.0, set()
        for delta in self._deltas:
            part = sum(_overlap(delta, span) for span in spans) if delta.device == device else 0.0
            if part == 0:
                continue
            if delta.energy_mj is None:
                return None, f"unknown: {delta.reason}"
            methods.add(delta.method)
            millijoules += delta.energy_mj * part
        if not methods:
            return None, f"unknown: {device} was not read meanwhile"
        if share < 1:
            return millijoules * share / 1e3, f"estimated: {share:.2f} of the board by MIG slices"
        counted = methods <= {EnergyMethod.COUNTER}
        return millijoules / 1e3, "counter" if counted else "estimated: power × time"

    def _run(self) -> None:
        while self._nvml is not None and not self._ended.wait(_SAMPLE_S):
            self._sample(self._nvml)

    def _sample(self, meter: NvmlMeter) -> None:
        with self._lock:
            self._deltas += meter.read()


def _digits(uuid: str) -> str:
    return uuid.lower().removeprefix("gpu-").removeprefix("mig-")


def _overlap(delta: EnergyDelta, span: Span) -> float:
    """The share of `delta`'s time that lies in `span`."""
    start, end = delta.start.timestamp(), delta.end.timestamp()
    return max(0.0, min(end, span[1]) - max(start, span[0])) / (end - start)

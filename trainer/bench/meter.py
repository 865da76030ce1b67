"""Joules of a stretch of training: NVML's counter where there is a board, else an estimate that says how it was made.

Without a board: rated power of a hardware thread (codecarbon's table, its default of 4 W where the processor is unknown) × the
threads used × seconds. That is time in other units, good for a comparison on one machine and no measurement.
"""

import os
import threading
import time
from bisect import bisect_left
from types import TracebackType
from typing import Any, Self

from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE

_LOOK_S = 0.2


class BenchMeter:
    """Looks at the counter of the board that `CUDA_VISIBLE_DEVICES` names (else board 0) while the block runs."""

    def __init__(self, threads: int | None) -> None:
        self._threads = threads or len(os.sched_getaffinity(0))
        self._nvml: Any = None
        self._looks: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        try:
            import pynvml

            pynvml.nvmlInit()
            index = int(os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or 0)
            self._board = pynvml.nvmlDeviceGetHandleByIndex(index)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(self._board)
            self._nvml = pynvml
            self._thread.start()
        except Exception:  # every way in which there is no counter ends in the labelled estimate
            self._nvml = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._nvml is not None:
            self._thread.join()
            self._nvml.nvmlShutdown()

    def joules(self, stretches: list[tuple[float, float]]) -> tuple[float | None, str]:
        """Over (start, end) in seconds since the epoch; and the method."""
        if self._nvml is None:
            watts = DEFAULT_POWER_PER_CORE * self._threads
            seconds = sum(end - start for start, end in stretches)
            return watts * seconds, f"estimated: {DEFAULT_POWER_PER_CORE:g} W a thread × {self._threads}"
        return sum(self._at(end) - self._at(start) for start, end in stretches) / 1e3, "counter"

    def _run(self) -> None:
        while not self._ended.wait(_LOOK_S):
            energy = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._board)
            self._looks.append((time.time(), int(energy)))

    def _at(self, when: float) -> float:
        """The counter at `when`, mJ, between the looks around it."""
        times = [t for t, _ in self._looks]
        i = min(max(bisect_left(times, when), 1), len(times) - 1)
        (t0, e0), (t1, e1) = self._looks[i - 1], self._looks[i]
        return e0 + (e1 - e0) * (when - t0) / (t1 - t0)

"""Meters NVIDIA boards through NVML.

`nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded (Volta and later).
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pynvml

from carbonsched.clock import Clock
from carbonsched.power.base import Device
from carbonsched.power.board_meter import BoardMeter, DriverError, Found
from carbonsched.power.boards import Board
from carbonsched.power.nvml_boards import (
    describe,
    has_nvidia_board,
    identify,
    mig_instances,
    occupant,
    power_error,
)

_REFUSED: Final = frozenset({pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})
_DRIVER_GONE: Final = frozenset({1, 2, 6, 9, 12, 15, 18, 999})
"""After these errors handles may be invalid: NVML is opened again."""
_LIFE_OVER: Final = frozenset({pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_GPU_IS_LOST})
"""After these errors counters start from zero: they count since the driver was loaded."""


class NvmlDriver:
    """What `BoardDriver` asks, of NVML.

    Example::

        meter = BoardMeter(NvmlDriver(), SystemClock())
    """

    name, library = "nvml", "NVML"

    def open(self) -> Found:
        """See `BoardDriver`."""
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as e:
            raise _error(e) from e
        boards, problems = [], []
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                boards.append((identify(index, handle), handle))
            except pynvml.NVMLError as e:
                problems.append(f"GPU {index} is not metered: {power_error(e)}; it is tried again")
        return Found(tuple(boards), tuple(problems))

    def close(self) -> None:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def describe(self, board: Board, handle: Any, ours: frozenset[str]) -> Device:
        return describe(board, handle, ours)

    def instances(self, handle: Any) -> Mapping[str, Any]:
        return {instance.id: each for instance, each in mig_instances(handle)}

    def counter_mj(self, handle: Any) -> int:
        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except pynvml.NVMLError as e:
            raise _error(e) from e

    def watts(self, handle: Any) -> float:
        try:
            return float(pynvml.nvmlDeviceGetPowerUsage(handle)) / 1000
        except pynvml.NVMLError as e:
            raise _error(e) from e

    def occupant(self, handle: Any, mine: Callable[[int], bool], *, memory: bool) -> str | None:
        return occupant(handle, mine, memory=memory)


def _error(error: pynvml.NVMLError) -> DriverError:
    return DriverError(
        str(power_error(error)),
        refused=error.value in _REFUSED,
        gone=error.value in _DRIVER_GONE,
        life_over=error.value in _LIFE_OVER,
        unloaded=error.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        missing=error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND and not has_nvidia_board(),
    )


class NvmlMeter(BoardMeter):
    """The boards that NVML shows and that are ours, by UUID.

    Example::

        meter = NvmlMeter(SystemClock())
        watts = {delta.device: delta.power_w for delta in meter.read()}
    """

    def __init__(
        self,
        clock: Clock,
        life: str | None = None,
        *,
        boards: Sequence[str | int] | None = None,
        must_answer: bool = True,
        sample_hz: float | None = None,
    ) -> None:
        """See `BoardMeter`."""
        super().__init__(
            NvmlDriver(), clock, life, boards=boards, must_answer=must_answer, sample_hz=sample_hz
        )

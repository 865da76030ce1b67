"""Reads and sets a board's graphics clock through NVML, and lists the processes that compute or draw on it.

`nvmlDeviceSetGpuLockedClocks` needs root; the driver keeps the lock while no process has it open. No call reports whether a
clock is locked: the helper must remember its own locks.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import pynvml

from carbonsched.errors import PowerError

T = TypeVar("T")

_NO_SUCH_CALL = frozenset({pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})


class Boards(Protocol):
    """The operations that leases need of the boards. Every call raises PowerError if the driver refuses.

    Example::

        boards.lock("GPU-1f2e3d4c", boards.clocks("GPU-1f2e3d4c")[3])
    """

    def clocks(self, board: str) -> tuple[int, ...]:
        """Supported graphics clocks, MHz, descending."""
        ...

    def lock(self, board: str, mhz: int) -> None: ...

    def reset(self, board: str) -> None: ...

    def users(self, board: str) -> tuple[int, ...]:
        """Processes on the board."""
        ...

    def split(self, board: str) -> bool:
        """Whether it is divided into instances (MIG): these share one clock."""
        ...


class NvmlBoards:
    """The boards of this box. NVML is opened anew for every request, so a driver reload in between does no harm.

    Example::

        NvmlBoards().reset("GPU-1f2e3d4c")
    """

    def clocks(self, board: str) -> tuple[int, ...]:
        return self._with(board, _clocks)

    def lock(self, board: str, mhz: int) -> None:
        def lock(handle: Any) -> None:
            # when idle the board may still lower its clock: only the upper end is limited
            pynvml.nvmlDeviceSetGpuLockedClocks(handle, _clocks(handle)[-1], mhz)

        self._with(board, lock)

    def reset(self, board: str) -> None:
        self._with(board, lambda handle: pynvml.nvmlDeviceResetGpuLockedClocks(handle))

    def users(self, board: str) -> tuple[int, ...]:
        return self._with(board, _users)

    def split(self, board: str) -> bool:
        return self._with(board, _split)

    def _with(self, board: str, call: Callable[[Any], T]) -> T:
        try:
            pynvml.nvmlInit()
            try:
                handle = pynvml.nvmlDeviceGetHandleByUUID(board)
                if str(pynvml.nvmlDeviceGetUUID(handle)) != board:
                    raise PowerError(f"{board} is none of this box")
                return call(handle)
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as e:
            raise PowerError(f"NVML: {e} (code {int(getattr(e, 'value', 999))})") from e


def _clocks(handle: Any) -> tuple[int, ...]:
    memory = max(pynvml.nvmlDeviceGetSupportedMemoryClocks(handle))
    found = {int(mhz) for mhz in pynvml.nvmlDeviceGetSupportedGraphicsClocks(handle, memory)}
    return tuple(sorted(found, reverse=True))


def _users(handle: Any) -> tuple[int, ...]:
    lists: Iterable[tuple[str, bool]] = (
        ("nvmlDeviceGetComputeRunningProcesses_v3", True),
        ("nvmlDeviceGetGraphicsRunningProcesses_v3", False),
        ("nvmlDeviceGetMPSComputeRunningProcesses_v3", False),
    )
    found: set[int] = set()
    for name, needed in lists:
        try:
            found |= {int(process.pid) for process in getattr(pynvml, name)(handle)}
        except pynvml.NVMLError as e:
            # without the first list the users are unknown; not every board has the other lists
            if needed or e.value not in _NO_SUCH_CALL:
                raise
    return tuple(sorted(found))


def _split(handle: Any) -> bool:
    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError as e:
        if e.value in _NO_SUCH_CALL:
            return False
        raise

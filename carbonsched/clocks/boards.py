"""Reads and sets a board's graphics clock through NVML, and tells who computes or draws on it.

`nvmlDeviceSetGpuLockedClocks` needs root; the driver keeps it while no process has it open. There is no call that tells
whether a clock is locked: what a helper locked it has to remember itself.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import pynvml

from carbonsched.errors import PowerError

T = TypeVar("T")

_NO_SUCH_CALL = frozenset({pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})


class Boards(Protocol):
    """What leases need of the boards. Every call raises PowerError where the driver refuses.

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
        """Whether it is cut into instances (MIG): their clock is one."""
        ...


class NvmlBoards:
    """The boards of this box. NVML is opened anew for every request: a driver that was reloaded in between is no trouble.

    Example::

        NvmlBoards().reset("GPU-1f2e3d4c")
    """

    def clocks(self, board: str) -> tuple[int, ...]:
        return self._with(board, _clocks)

    def lock(self, board: str, mhz: int) -> None:
        def lock(handle: Any) -> None:
            # at rest the board may still sink below it: only the top is taken away
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
            # without the first list it cannot be told who is there; the others are not on every board
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

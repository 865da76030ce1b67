"""Reads from NVML what a board is: its name, memory, limits and speed, its MIG instances, and who else uses it.

What only serves estimates is None where the driver does not say. NVML's errors become one line with a hint here.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import pynvml

from carbonsched.errors import PowerError
from carbonsched.power.base import Device, Instance
from carbonsched.power.boards import Board
from carbonsched.power.peak_flops import peak_flops

T = TypeVar("T")

REASONS: Final[dict[int, str]] = {
    1: "NVML is not initialized: the driver went away; it is tried again",
    2: "NVML refused an argument: the device is not one of this driver's",
    3: "this device does not support it",
    4: "no permission: give the daemon's user access to /dev/nvidia*",
    6: "the device is no longer there: it fell off the bus or was taken away",
    9: "the NVIDIA driver is not loaded: load it (modprobe nvidia)",
    10: "the driver did not answer in time",
    12: "libnvidia-ml.so.1 is not installed: install the NVIDIA driver's user part",
    13: "this driver is too old to know the call: update it",
    15: "the GPU is lost: it fell off the bus; the box must be restarted",
    16: "the GPU must be reset before it can be read",
    17: "the operating system blocked access: open /dev/nvidia* to the daemon (DeviceAllow=char-nvidia* rw)",
    18: "the driver and its library differ in version: restart the box or load the new driver",
    999: "NVML failed for a reason it does not know",
}
_FREE_BYTES: Final = 2 << 30
"""Memory that an unused board may hold: the driver's own, and a screen's."""
_PCI: Final = Path("/sys/bus/pci/devices")
_NVIDIA: Final = "0x10de"
_DISPLAY_CLASS: Final = "0x03"


def power_error(error: pynvml.NVMLError) -> PowerError:
    """NVML's error code as a PowerError: one line with a hint."""
    code = int(getattr(error, "value", 999))
    return PowerError(f"NVML: {REASONS.get(code, str(error))} (code {code})")


def has_nvidia_board() -> bool:
    """Whether the box has a board of NVIDIA's at all, driver or not."""
    try:
        return any(
            (device / "vendor").read_text().strip() == _NVIDIA
            and (device / "class").read_text().startswith(_DISPLAY_CLASS)
            for device in _PCI.iterdir()
        )
    except OSError:
        return False


def identify(index: int, handle: Any) -> Board:
    """What identifies it. Raises NVMLError if it has no UUID."""
    return Board(
        uuid=str(pynvml.nvmlDeviceGetUUID(handle)),
        index=index,
        name=_name(handle),
        displays=bool(ask(lambda: pynvml.nvmlDeviceGetDisplayActive(handle))),
        instances=tuple(instance.id for instance, _ in mig_instances(handle)),
    )


def describe(board: Board, handle: Any, ours: Collection[str]) -> Device:
    """ours: the instances that jobs may be put on."""
    limit = ask(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    mig = _is_split(handle)
    cores = ask(lambda: int(pynvml.nvmlDeviceGetNumGpuCores(handle)))
    mhz = ask(lambda: int(pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)))
    capability = ask(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    return Device(
        id=board.uuid,
        kind="gpu",
        name=f"{board.name} (MIG, metered whole)" if mig else board.name,
        index=board.index,
        watts_limit=None if limit is None else limit / 1000,
        memory_bytes=ask(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)),
        split=mig,
        instances=tuple(replace(each, ours=each.id in ours) for each, _ in mig_instances(handle)),
        peak_flops=peak_flops(board.name, cores, mhz, capability),
    )


def mig_instances(handle: Any) -> Iterator[tuple[Instance, Any]]:
    """The MIG instances of a board with their handles; none if MIG is off."""
    if not _is_split(handle):
        return
    for index in range(ask(lambda: int(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle))) or 0):
        found = ask(lambda index=index: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))  # type: ignore[misc]
        uuid = None if found is None else ask(lambda found=found: str(pynvml.nvmlDeviceGetUUID(found)))  # type: ignore[misc]
        if uuid is None:
            continue
        slices = ask(lambda found=found: int(pynvml.nvmlDeviceGetAttributes(found).gpuInstanceSliceCount))  # type: ignore[misc]
        yield Instance(uuid, slices or 1), found


def occupant(handle: Any, mine: Callable[[int], bool], *, memory: bool) -> str | None:
    """Who else uses a board, or an instance: a process that is not `mine`; with `memory` also memory that no process here explains."""
    found = ask(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses_v3(handle)) or []
    others = [process for process in found if not mine(process.pid)]
    if others:
        most = max(others, key=lambda process: process.usedGpuMemory or 0)
        taken = "" if most.usedGpuMemory is None else f" with {most.usedGpuMemory / 2**30:.1f} GiB"
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        return f"process {most.pid} ({_command(most.pid)}) computes on it{taken}{more}"
    held = ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle)) if memory else None
    if found or held is None or held.used <= min(_FREE_BYTES, held.total / 4):
        return None
    return f"{held.used / 2**30:.1f} GiB of its memory are in use, by nobody that can be seen from here"


def ask(call: Callable[[], T]) -> T | None:
    """Ask for an optional value: None if the device does not report it."""
    try:
        return call()
    except pynvml.NVMLError:
        return None


def _name(handle: Any) -> str:
    return ask(lambda: str(pynvml.nvmlDeviceGetName(handle))) or "NVIDIA GPU"


def _is_split(handle: Any) -> bool:
    return ask(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0]) == 1


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "of another user or container"

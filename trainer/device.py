"""Knows the board that this process trains on: why torch does not see it, when its work is done, and its name.

A job that was given a board and does not see it would train on the CPU for days, with an idle board's energy on its account; it is ended
before it loads anything, with the cause. Times are read after the device has finished, because CUDA runs asynchronously.
"""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from carbonsched.errors import InputError

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
DEV: Final = Path("/dev")
_DRIVERS: Final = {11: 450, 12: 525, 13: 580}
"""CUDA's major version → the oldest driver that runs it (CUDA's release notes, minor version compatibility)."""


def device_seconds() -> float:
    """Monotonic time after the device has finished all its work."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return time.monotonic()


def runs_in_bf16(autocast: str | None, dtype: str) -> bool:
    """Whether matrix products run in bf16 over weights of `dtype`, by a job's `train.autocast`."""
    if autocast == "auto":
        return dtype == "fp32" and has_bf16()
    return autocast == "bf16"


def has_bf16() -> bool:
    """Whether torch sees a board with bf16 in hardware."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def to_host(states: torch.Tensor) -> torch.Tensor:
    """A copy of the tensor in host memory, complete on return; from a board through page-locked memory, which it can write by DMA."""
    if states.device.type != "cuda":
        return states.detach().cpu()
    host = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
    host.copy_(states.detach(), non_blocking=True)
    torch.cuda.current_stream(states.device).synchronize()
    return host


def peak_memory() -> int | None:
    """Peak bytes of the board that this process held, including free blocks in the allocator; None: no board."""
    return int(torch.cuda.max_memory_reserved()) if torch.cuda.is_available() else None


def begin_peak() -> None:
    """Start measuring peak memory for `peak_since`: of the board if there is one, else of this process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_since() -> int | None:
    """Peak bytes of tensors on the board since `begin_peak`, on a CPU of this process; None: this system does not report it."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else None


def board_uuid(device: Any) -> str | None:
    """NVML's name for a CUDA device, `GPU-` and digits; None if this torch does not report it."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return None if uuid is None else f"GPU-{str(uuid).removeprefix('GPU-')}"


def check_board() -> None:
    """Raise InputError if this process was given a board by UUID, as the daemon does, and torch sees none."""
    given = os.environ.get(VISIBLE, "")
    if not given.startswith(("GPU-", "MIG-")) or torch.cuda.is_available():
        return
    problem, hint = cuda_problem() or ("torch.cuda.is_available() is false", "see nvidia-smi and dmesg")
    raise InputError(
        "device", f"board {given} was given to this job and torch sees no CUDA device: {problem}", hint
    )


def note_problem() -> str | None:
    """What `check` says on a box with an NVIDIA board that torch does not see; None otherwise, and if boards are hidden."""
    if os.environ.get(VISIBLE) == "" or not (DEV / "nvidiactl").exists() or torch.cuda.is_available():
        return None
    found = cuda_problem()
    return None if found is None else f"torch sees no CUDA device on this box: {found[0]}; {found[1]}"


def cuda_problem(driver: Callable[[], int | None] | None = None) -> tuple[str, str] | None:
    """(why torch has no CUDA device, how to fix it); None if no cause is found. driver: see `driver_cuda`."""
    built = torch.version.cuda
    if built is None:
        return (
            f"torch {torch.__version__} is a build without CUDA",
            "install a CUDA wheel of torch for launch.python",
        )
    speaks = (driver or driver_cuda)()
    if speaks is None:
        return (
            "the driver's libcuda.so.1 cannot be loaded",
            "in a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility; elsewhere install the driver's CUDA part",
        )
    if speaks // 1000 < int(built.split(".")[0]):
        least = _DRIVERS.get(int(built.split(".")[0]))
        newer = "a newer driver" if least is None else f"driver {least} or newer"
        return (
            f"torch {torch.__version__} is built for CUDA {built}, the driver speaks {speaks // 1000}.{speaks % 1000 // 10}",
            f"install {newer}, or a torch wheel for CUDA {speaks // 1000}",
        )
    return _closed_device()


def driver_cuda() -> int | None:
    """The newest CUDA version that the driver supports, as 13000 for 13.0; None if there is no libcuda."""
    version = ctypes.c_int()
    try:
        code = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return version.value if code == 0 and version.value > 0 else None


def _closed_device() -> tuple[str, str] | None:
    """A device file that CUDA needs, NVML does not, and this process may not open."""
    uvm = DEV / "nvidia-uvm"
    if not uvm.exists():
        return (
            f"there is no {uvm}: the module nvidia-uvm was not loaded",
            "modprobe nvidia-uvm; under systemd Wants= and After=modprobe@nvidia_uvm.service",
        )
    if not os.access(uvm, os.R_OK | os.W_OK):
        return f"{uvm} may not be opened by {_user()}", "DeviceAllow=char-nvidia* rw, and the files' group"
    return None


def _user() -> str:
    return f"uid {os.getuid()}"

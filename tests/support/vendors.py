"""Stand-ins for what AMD's and Intel's boards are read through: a module in the place of `amdsmi`, and the kernel's files."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest

from carbonsched.power.amd_driver import AmdDriver
from carbonsched.power.board_meter import BoardDriver
from carbonsched.power.intel_driver import IntelDriver


class Vendor(Protocol):
    """Two boards whose counters a test moves."""

    ids: tuple[str, str]

    def driver(self) -> BoardDriver: ...
    def use(self, board: int, joules: float) -> None: ...
    def break_board(self, board: int) -> None: ...
    def mend_board(self, board: int) -> None: ...
    def reload(self) -> None:
        """The driver: every counter begins at zero."""

    def remove(self) -> None:
        """The driver, or its library."""

    def put_back(self) -> None: ...


class AmdSmiError(Exception):
    """As the real library's exceptions: a code, and a text of several lines."""

    def __init__(self, err_code: int) -> None:
        super().__init__(err_code)
        self.err_code = err_code

    def __str__(self) -> str:
        return f"Error code:\n\t{self.err_code} | AMDSMI_STATUS"


STEP_UJ = 15.259
"""The real library's step, in microjoules, which it has as a 32-bit float."""


@dataclass
class FakeAmd:
    """The calls of `amdsmi` that the driver makes, with the real ones' dictionaries."""

    monkeypatch: pytest.MonkeyPatch
    joules: list[float] = field(default_factory=lambda: [5_000_000.0, 70.0])
    watts: list[Any] = field(default_factory=lambda: [300, 310])
    serials: tuple[str, str] = ("0x18F5A6D0B1C2E3F4", "0x2")
    codes: dict[int, int] = field(default_factory=dict)
    """Board → the error of every call about it; None: of all boards."""
    counts: bool = True
    loaded: bool = True
    asked: list[str] = field(default_factory=list)
    ids: tuple[str, str] = ("GPU-18f5a6d0b1c2e3f4", "GPU-0000000000000002")

    def __post_init__(self) -> None:
        self.put_back()

    def driver(self) -> BoardDriver:
        return AmdDriver()

    def use(self, board: int, joules: float) -> None:
        self.joules[board] += joules

    def break_board(self, board: int) -> None:
        self.codes[board] = 12

    def mend_board(self, board: int) -> None:
        self.codes.pop(board, None)

    def reload(self) -> None:
        self.joules = [0.0, 0.0]

    def remove(self) -> None:
        self.loaded = False

    def put_back(self) -> None:
        self.loaded = True
        module: Any = ModuleType("amdsmi")
        for name in (
            *("init", "shut_down", "get_processor_handles", "get_gpu_asic_info", "get_gpu_device_uuid"),
            *("get_energy_count", "get_power_info", "get_power_cap_info", "get_gpu_vram_info"),
            "get_gpu_process_list",
        ):
            setattr(module, f"amdsmi_{name}", self._call(name))
        self.monkeypatch.setitem(sys.modules, "amdsmi", module)

    def _call(self, name: str) -> Any:
        def call(*handles: int) -> Any:
            self.asked.append(name)
            if not self.loaded:
                raise AmdSmiError(34)
            if handles and handles[0] in self.codes:
                raise AmdSmiError(self.codes[handles[0]])
            return getattr(self, f"_{name}")(*handles)

        return call

    def _init(self) -> None: ...
    def _shut_down(self) -> None: ...
    def _get_processor_handles(self) -> list[int]:
        return [0, 1]

    def _get_gpu_asic_info(self, handle: int) -> dict[str, Any]:
        return {"market_name": "AMD Instinct MI300X", "asic_serial": self.serials[handle]}

    def _get_gpu_device_uuid(self, handle: int) -> str:
        return f"b5ff74a1-0000-1000-80b5-00000000000{handle}"

    def _get_energy_count(self, handle: int) -> dict[str, Any]:
        if not self.counts:
            raise AmdSmiError(2)
        steps = int(self.joules[handle] * 1e6 / STEP_UJ)
        return {"energy_accumulator": steps, "counter_resolution": STEP_UJ, "timestamp": 1}

    def _get_power_info(self, handle: int) -> dict[str, Any]:
        return {"current_socket_power": self.watts[handle], "average_socket_power": "N/A", "power_limit": 750}

    def _get_power_cap_info(self, handle: int) -> dict[str, Any]:
        return {"power_cap": 750_000_000}

    def _get_gpu_vram_info(self, handle: int) -> dict[str, Any]:
        return {"vram_size": 196_592}

    def _get_gpu_process_list(self, handle: int) -> list[dict[str, Any]]:
        return [{"name": "train.py", "pid": 4711, "mem": 1}, {"name": "mine", "pid": 12, "mem": 1}]


@dataclass
class FakeIntel:
    """`/sys/class/hwmon` with a board of xe, one of i915, and a sensor that is neither."""

    root: Path
    ids: tuple[str, str] = ("GPU-pci-0000:03:00.0", "GPU-pci-0000:9a:00.0")
    joules: list[float] = field(default_factory=lambda: [5_000_000.0, 70.0])

    def __post_init__(self) -> None:
        self.hwmon.mkdir()
        sensor = self.hwmon / "hwmon0"
        sensor.mkdir()
        (sensor / "name").write_text("nvme\n")
        self.put_back()

    @property
    def hwmon(self) -> Path:
        return self.root / "hwmon"

    def folder(self, board: int) -> Path:
        return self.hwmon / f"hwmon{7 - board}"  # not in the bus's order

    def driver(self) -> BoardDriver:
        return IntelDriver(self.hwmon)

    def use(self, board: int, joules: float) -> None:
        self.joules[board] += joules
        self._write(board)

    def break_board(self, board: int) -> None:
        """A read of the file fails: a directory stands there."""
        (self.folder(board) / "energy1_input").unlink()
        (self.folder(board) / "energy1_input").mkdir()

    def mend_board(self, board: int) -> None:
        (self.folder(board) / "energy1_input").rmdir()
        self._write(board)

    def reload(self) -> None:
        self.joules = [0.0, 0.0]
        self._write(0)
        self._write(1)

    def remove(self) -> None:
        for board in (0, 1):
            for file in self.folder(board).iterdir():
                file.unlink()
            self.folder(board).rmdir()

    def put_back(self) -> None:
        for board, name in enumerate(("xe", "i915")):
            device = self.root / "devices" / self.ids[board].removeprefix("GPU-pci-")
            device.mkdir(parents=True, exist_ok=True)
            (device / "device").write_text("0x56c0\n")
            folder = self.folder(board)
            folder.mkdir()
            (folder / "device").symlink_to(device)
            (folder / "name").write_text(f"{name}\n")
            (folder / "power1_max").write_text("0\n")
            (folder / "power1_rated_max").write_text("150000000\n")
            self._write(board)

    def _write(self, board: int) -> None:
        file = self.folder(board) / "energy1_input"
        if not file.is_dir():  # broken
            file.write_text(f"{int(self.joules[board] * 1e6)}\n")

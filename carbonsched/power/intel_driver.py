"""Reads Intel's boards from the files of their kernel drivers, i915 and xe (hwmon), without a library.

`energy1_input` counts microjoules since the driver was loaded; the kernel takes care of the register's 32 bits where it is
read at least once a wrap. Source: the kernel's Documentation/ABI/testing/sysfs-driver-intel-i915-hwmon and …-xe-hwmon.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from carbonsched.power.base import Device
from carbonsched.power.board_meter import DriverError, Found
from carbonsched.power.boards import Board

HWMON: Final = Path("/sys/class/hwmon")
_DRIVERS: Final = ("i915", "xe")
_COUNTERS: Final = ("energy1_input", "energy2_input")
"""The card's counter, or the package's if it has none."""
_LIMITS: Final = ("power1_max", "power1_rated_max")
_UJ_PER_MJ: Final = 1000
_UW_PER_W: Final = 1e6


class IntelDriver:
    """What `BoardDriver` asks, of the kernel's files.

    Example::

        meter = BoardMeter(IntelDriver(), SystemClock())
    """

    name, library = "intel-hwmon", "the kernel (hwmon of i915 or xe)"

    def __init__(self, root: Path = HWMON) -> None:
        self._root = root

    def open(self) -> Found:
        """See `BoardDriver`."""
        try:
            folders = [path for path in self._root.iterdir() if _text(path / "name") in _DRIVERS]
        except OSError as e:
            problem = f"no board of Intel's is found: {self._root} cannot be read: {e.strerror}"
            raise DriverError(f'{problem}; load i915 or xe, or set power.gpu = "auto"') from e
        found = sorted((_address(folder), folder) for folder in folders if _counter(folder) is not None)
        boards = tuple(
            (Board(f"GPU-pci-{address}", index, _name(folder)), folder)
            for index, (address, folder) in enumerate(found)
        )
        without = sorted(_address(folder) for folder in folders if _counter(folder) is None)
        return Found(boards, tuple(f"{each} is not metered: it counts no energy" for each in without))

    def close(self) -> None:
        """Nothing is held open."""

    def describe(self, board: Board, handle: Path, ours: frozenset[str]) -> Device:
        limits = (_number(handle / name) for name in _LIMITS)
        limit = next((value for value in limits if value), None)  # 0: switched off
        return Device(
            id=board.uuid,
            kind="gpu",
            name=board.name,
            index=board.index,
            watts_limit=None if limit is None else limit / _UW_PER_W,
        )

    def instances(self, handle: Path) -> Mapping[str, Any]:
        return {}

    def counter_mj(self, handle: Path) -> int:
        """Raises DriverError: the folder goes with the driver, and the count with it."""
        file = _counter(handle)
        if file is None:
            raise DriverError(
                f"{handle.name}: the driver went away; it is tried again", gone=True, life_over=True
            )
        try:
            return int(file.read_text()) // _UJ_PER_MJ
        except OSError as e:
            raise DriverError(f"{file.name} cannot be read: {e.strerror}", gone=True) from e
        except ValueError as e:
            raise DriverError(f"{file.name} is no number") from e

    def watts(self, handle: Path) -> float:
        """Always raises DriverError: these drivers report power only through their counter."""
        raise DriverError("the driver tells no power but by its counter", refused=True)

    def occupant(self, handle: Path, mine: Callable[[int], bool], *, memory: bool) -> str | None:
        """These files do not tell who uses the board."""
        return None


def _counter(folder: Path) -> Path | None:
    return next((folder / name for name in _COUNTERS if (folder / name).exists()), None)


def _address(folder: Path) -> str:
    """On the PCI bus."""
    return (folder / "device").resolve().name


def _name(folder: Path) -> str:
    device = _text(folder / "device" / "device")
    return f"Intel GPU {device}" if device else "Intel GPU"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdecimal() else None

"""Reads AMD's boards through AMD SMI (`amdsmi`, which comes with ROCm).

`amdsmi_get_energy_count` accumulates since the driver was loaded, in steps of about 15.3 µJ. A board is known by its serial,
as ROCm knows it (`GPU-` and 16 hexadecimal digits). Source: AMD SMI's header and Python interface, 6.3.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from carbonsched.power.base import Device
from carbonsched.power.board_meter import DriverError, Found
from carbonsched.power.boards import Board

_NOT_SUPPORTED, _NOT_IMPLEMENTED, _NO_PERM, _NOT_LOADED = 2, 3, 10, 34
_REFUSED: Final = frozenset({_NOT_SUPPORTED, _NOT_IMPLEMENTED, 55})
_GONE: Final = frozenset({6, 31, 32, _NOT_LOADED})
"""DRM error, not found, not initialised, driver not loaded: handles may be void."""
_HINTS: Final = {
    _NO_PERM: "no permission: add the daemon's user to the groups render and video",
    _NOT_LOADED: "the driver is not loaded: load it (modprobe amdgpu)",
}
_W_PER_UW: Final = 1e-6
_MJ_PER_UJ: Final = 1e-3


class AmdDriver:
    """What `BoardDriver` asks, of AMD SMI.

    Example::

        meter = BoardMeter(AmdDriver(), SystemClock())
    """

    name, library = "amdsmi", "AMD SMI"

    def open(self) -> Found:
        """See `BoardDriver`. Raises DriverError also where amdsmi is not installed."""
        with _driver_errors():
            self._smi.amdsmi_init()
            handles = self._smi.amdsmi_get_processor_handles()
        boards, problems = [], []
        for index, handle in enumerate(handles):
            try:
                boards.append((self._identify(index, handle), handle))
            except DriverError as e:
                problems.append(f"GPU {index} is not metered: {e}; it is tried again")
        return Found(tuple(boards), tuple(problems))

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._smi.amdsmi_shut_down()

    def describe(self, board: Board, handle: Any, ours: frozenset[str]) -> Device:
        cap = _ask(lambda: self._smi.amdsmi_get_power_cap_info(handle)["power_cap"])
        size_mb = _ask(lambda: self._smi.amdsmi_get_gpu_vram_info(handle)["vram_size"])
        return Device(
            id=board.uuid,
            kind="gpu",
            name=board.name,
            index=board.index,
            watts_limit=float(cap) * _W_PER_UW if cap else None,
            memory_bytes=int(size_mb) << 20 if size_mb else None,
        )

    def instances(self, handle: Any) -> Mapping[str, Any]:
        """A partition of a board is a board of its own to AMD SMI."""
        return {}

    def counter_mj(self, handle: Any) -> int:
        with _driver_errors():
            told = self._smi.amdsmi_get_energy_count(handle)
        steps = told.get("energy_accumulator", told.get("power"))  # as it was called before 6.4
        if not isinstance(steps, int) or not told["counter_resolution"]:
            raise DriverError("AMD SMI: the board counts no energy", refused=True)
        return int(steps * float(told["counter_resolution"]) * _MJ_PER_UJ)

    def watts(self, handle: Any) -> float:
        with _driver_errors():
            told = self._smi.amdsmi_get_power_info(handle)
        for key in ("current_socket_power", "average_socket_power"):
            if isinstance(told.get(key), int | float):
                return float(told[key])
        raise DriverError("AMD SMI: the board tells no power", refused=True)

    def occupant(self, handle: Any, mine: Callable[[int], bool], *, memory: bool) -> str | None:
        """Who else computes on it; memory that no process explains is not looked at."""
        found = _ask(lambda: self._smi.amdsmi_get_gpu_process_list(handle)) or []
        others = [each for each in found if isinstance(each, Mapping) and not mine(int(each["pid"]))]
        return f"process {others[0]['pid']} ({others[0]['name']}) computes on it" if others else None

    @property
    def _smi(self) -> Any:
        """The library, loaded at first use: reading a config does not take one."""
        try:
            import amdsmi
        except (ImportError, OSError, KeyError) as e:
            raise DriverError(
                f"AMD SMI cannot be loaded ({e}): install ROCm's amd-smi-lib, and pip install amdsmi",
                missing=True,
            ) from e
        return amdsmi

    def _identify(self, index: int, handle: Any) -> Board:
        with _driver_errors():
            asic = self._smi.amdsmi_get_gpu_asic_info(handle)
            serial = str(asic.get("asic_serial", "")).removeprefix("0x").lower()
            known = bool(serial.strip("0")) and serial != "n/a"
            uuid = serial.zfill(16) if known else str(self._smi.amdsmi_get_gpu_device_uuid(handle))
        name = str(asic.get("market_name") or "N/A")
        return Board(uuid=f"GPU-{uuid}", index=index, name="AMD GPU" if name == "N/A" else name)


@contextlib.contextmanager
def _driver_errors() -> Iterator[None]:
    """What the library raises, as DriverError: its errors are known by their code, whatever their class."""
    try:
        yield
    except DriverError:
        raise
    except Exception as e:
        code = getattr(e, "err_code", None)
        if code is None and not type(e).__name__.startswith("AmdSmi"):
            raise
        code = int(code or 0)
        text = _HINTS.get(code, " ".join(str(e).split()))
        raise DriverError(
            f"AMD SMI: {text} (code {code})",
            refused=code in _REFUSED,
            gone=code in _GONE,
            life_over=code == _NOT_LOADED,
            unloaded=code == _NOT_LOADED,
        ) from e


def _ask(call: Callable[[], Any]) -> Any:
    """What is nice to know: None where the board does not say."""
    try:
        with _driver_errors():
            told = call()
    except DriverError:
        return None
    return None if told == "N/A" else told

"""Meters NVIDIA devices through NVML: by their total-energy counter where they have one, else by their power.

`nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded (Volta and later); only
differences mean anything. The counter and the power are the device's, all its MIG instances and processes together.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pynvml

from carbonsched.clock import Clock
from carbonsched.errors import PowerError
from carbonsched.model.energy import EnergyDelta
from carbonsched.power.base import Device, Mark
from carbonsched.power.boot import boot_id
from carbonsched.power.counter import DeviceCounter, Sample

log = logging.getLogger(__name__)
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
_NOT_SUPPORTED: Final = 3
_RETRY_S: Final = 30.0
"""Pause between attempts to reach a driver that went away."""
_DRIVER_GONE: Final = frozenset({1, 2, 6, 9, 12, 15, 18, 999})
"""After these the handles may be void: NVML is opened anew."""


def power_error(error: pynvml.NVMLError) -> PowerError:
    """NVML's code as the project's error, one line with a hint."""
    code = int(getattr(error, "value", 999))
    return PowerError(f"NVML: {REASONS.get(code, str(error))} (code {code})")


class NvmlMeter:
    """All devices that NVML shows, by UUID. Raises PowerError where there are none.

    Example::

        meter = NvmlMeter(SystemClock())
        watts = {delta.device: delta.power_w for delta in meter.read()}
    """

    def __init__(self, clock: Clock, life: str | None = None) -> None:
        """`life`: names the boot in counter epochs; None: this boot."""
        self._clock = clock
        self._handles: dict[str, Any] = {}
        self._countless: set[str] = set()
        self._retry_at = 0.0
        devices = self._open()
        if not devices:
            raise PowerError('NVML shows no device: add one, or set power.gpu = "none"')
        self.devices = tuple(devices)
        life = life or boot_id()
        self._counters = {
            device.id: DeviceCounter(device.id, "nvml", life, watts_limit=device.watts_limit)
            for device in self.devices
        }

    def resume(self, marks: dict[str, Mark]) -> None:
        for device, counter in self._counters.items():
            if device in marks:
                counter.resume(marks[device])

    def read(self) -> tuple[EnergyDelta, ...]:
        deltas = (counter.add(self._sample(device)) for device, counter in self._counters.items())
        return tuple(delta for delta in deltas if delta is not None)

    def close(self) -> None:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()

    def _open(self) -> list[Device]:
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as e:
            raise power_error(e) from e
        devices = []
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid = str(pynvml.nvmlDeviceGetUUID(handle))
            except pynvml.NVMLError as e:
                log.warning("GPU %d is not metered: %s", index, power_error(e))
                continue
            self._handles[uuid] = handle
            devices.append(_device(uuid, index, handle))
        return devices

    def _sample(self, uuid: str) -> Sample:
        # the counter is read first and the time right after it: that is the instant the energy belongs to
        counter, problem = self._counter(uuid)
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if problem is not None:
            return Sample(now, monotonic, error=str(power_error(problem)))
        try:
            watts: float | None = pynvml.nvmlDeviceGetPowerUsage(self._handles[uuid]) / 1000
        except pynvml.NVMLError as e:
            if counter is None:
                self._lost(e)
                return Sample(now, monotonic, error=str(power_error(e)))
            watts = None
        return Sample(now, monotonic, counter, watts)

    def _counter(self, uuid: str) -> tuple[int | None, pynvml.NVMLError | None]:
        """(millijoules, None), (None, None) for a device that has no counter, or (None, what went wrong)."""
        self._reopen_if_due()
        if uuid in self._countless:
            return None, None
        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handles[uuid])), None
        except pynvml.NVMLError as e:
            if e.value in (_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                log.warning("%s has no energy counter; its power is integrated instead", uuid)
                self._countless.add(uuid)
                return None, None
            self._lost(e)
            return None, e

    def _lost(self, error: pynvml.NVMLError) -> None:
        if error.value in _DRIVER_GONE and self._retry_at == 0.0:
            self._retry_at = self._clock.monotonic() + _RETRY_S

    def _reopen_if_due(self) -> None:
        if self._retry_at == 0.0 or self._clock.monotonic() < self._retry_at:
            return
        self._retry_at = 0.0
        self.close()
        try:
            self._open()
        except PowerError as e:
            log.warning("%s", e)
            self._retry_at = self._clock.monotonic() + _RETRY_S


def _device(uuid: str, index: int, handle: Any) -> Device:
    name = _ask(lambda: str(pynvml.nvmlDeviceGetName(handle))) or "NVIDIA GPU"
    mig = _ask(lambda: pynvml.nvmlDeviceGetMigMode(handle)[0]) == 1
    limit = _ask(lambda: pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    return Device(
        id=uuid,
        kind="gpu",
        name=f"{name} (MIG, metered whole)" if mig else name,
        index=index,
        watts_limit=None if limit is None else limit / 1000,
        memory_bytes=_ask(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)),
    )


def _ask(call: Callable[[], T]) -> T | None:
    """What is nice to know but not needed: None where the device does not say."""
    try:
        return call()
    except pynvml.NVMLError:
        return None

"""Meters NVIDIA devices through NVML: by their total-energy counter where they have one, else by their power, read more often.

`nvmlDeviceGetTotalEnergyConsumption` counts millijoules since the driver was loaded (Volta and later); only
differences mean anything. The counter and the power are the device's, all its MIG instances and processes together.
What does not answer is asked again: a driver, or a board, that comes late is metered from then on.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import pynvml

from carbonsched.clock import Clock
from carbonsched.errors import InputError, PowerError
from carbonsched.model.energy import EnergyDelta
from carbonsched.power.base import Device, Mark
from carbonsched.power.boards import Board, Choice, choose, our_instances
from carbonsched.power.boot import boot_id
from carbonsched.power.counter import DeviceCounter, Sample
from carbonsched.power.nvml_boards import (
    ask,
    describe,
    has_nvidia_board,
    identify,
    mig_instances,
    occupant,
    power_error,
)
from carbonsched.power.power_sampler import PowerSampler

log = logging.getLogger(__name__)

_METER: Final = "nvml"
_REFUSED: Final = frozenset({pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND})
_NO_LIBRARY: Final = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
_RETRY_S: Final = 30.0
"""Pause between attempts to reach a driver that went away, or a counter that was refused."""
_DRIVER_GONE: Final = frozenset({1, 2, 6, 9, 12, 15, 18, 999})
"""After these the handles may be void: NVML is opened anew."""
_HELD_S: Final = 1.0
"""So long a read that is under way is waited for before NVML is opened anew."""
_LIFE_OVER: Final = frozenset({pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_GPU_IS_LOST})
"""What is counted after these is counted from zero: the counter is since the driver was loaded."""


class NvmlMeter:
    """The devices that NVML shows and that are ours, by UUID.

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
        """`life`: names the boot in counter epochs; None: this boot. `boards`: as `power.boards`, see `boards.choose`; None: every one that NVML shows.
        `sample_hz`: how often the power is read of a board whose energy is integrated from it; None: with each `read`.

        Raises PowerError where there is no device; without `must_answer` it is said and tried again. Raises InputError where
        `boards` names none of those that are here.
        """
        self._clock, self._wanted, self._life = clock, boards, life or boot_id()
        self._handles: dict[str, Any] = {}
        self._devices: dict[str, Device] = {}
        self._counters: dict[str, DeviceCounter] = {}
        self._marks: dict[str, Mark] = {}
        self._refused_from: dict[str, float] = {}
        """Device → since when it says that it has no counter."""
        self._ask_at: dict[str, float] = {}
        """Device without a counter → when it is asked for one again."""
        self._counts: set[str] = set()
        """Devices whose counter has answered."""
        self._seen: set[str] = set()
        """Boards that NVML has shown, ours or not."""
        self._retry_at: float | None = None
        self._unloaded = False
        """The driver was not loaded when NVML was last opened."""
        self._said: set[str] = set()
        self._driver = threading.Lock()
        """Held around a read of the sampler's, and while NVML is opened anew."""
        self._sampler = None if sample_hz is None else PowerSampler(clock, sample_hz, self._watts)
        try:
            self._open()
        except PowerError as e:
            if must_answer:
                raise
            self._tell_absence(e)
            self._retry_later()

    @property
    def devices(self) -> tuple[Device, ...]:
        """Those that have answered so far."""
        return tuple(self._devices.values())

    def resume(self, marks: dict[str, Mark]) -> None:
        """See `Meter`; also a board that was metered in this boot and does not answer is accounted for: as unknown."""
        self._marks = dict(marks)
        for device, mark in marks.items():
            if self._is_absent(device, mark):
                self._warn(f"{device} was metered and does not answer: its energy is unknown until it does")
                self._counters[device] = DeviceCounter(device, _METER, self._life)
                self._retry_later()
        for device, counter in self._counters.items():
            if device in marks:
                counter.resume(marks[device])

    def read(self) -> tuple[EnergyDelta, ...]:
        self._reopen_if_due()
        samples = {device: self._sample(device) for device in self._counters}
        falls = [self._counters[device].falls(sample) for device, sample in samples.items()]
        # a driver begins all its counters anew; one board that fell off the bus begins its own
        reloaded = falls.count(True) >= 2 and falls.count(True) > falls.count(False)
        deltas = [self._counters[device].add(sample, reloaded=reloaded) for device, sample in samples.items()]
        late = [delta for counter in self._counters.values() for delta in counter.take_late()]
        if self._sampler is not None:
            self._sampler.watch(device for device, counter in self._counters.items() if counter.wants_power)
        return (*(delta for delta in deltas if delta is not None), *late)

    def occupant(self, board: str, mine: Callable[[int], bool], *, memory: bool = True) -> str | None:
        """See `KnowsOccupants`; also of a MIG instance."""
        handle = self._handles.get(board)
        return None if handle is None else occupant(handle, mine, memory=memory)

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
        _shut()

    # ---- opening

    def _open(self) -> None:
        """Find the boards that are ours, and take up those that are new. Raises PowerError, or InputError by `boards`."""
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError as e:
            self._unloaded = e.value == pynvml.NVML_ERROR_DRIVER_NOT_LOADED
            raise power_error(e) from e
        self._unloaded = False
        found: list[tuple[Board, Any]] = []
        for index in range(count):
            try:
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                found.append((identify(index, handle), handle))
            except pynvml.NVMLError as e:
                self._warn(f"GPU {index} is not metered: {power_error(e)}; it is tried again")
                self._retry_later()
        if not found:
            raise PowerError('NVML shows no device: add one, or set power.gpu = "none"')
        self._seen |= {board.uuid for board, _ in found}
        every = [board for board, _ in found]
        chosen = Choice(tuple(every), ()) if self._wanted is None else choose(every, self._wanted, os.environ)
        for warning in chosen.warnings:
            self._warn(warning)
        if not chosen.boards:
            raise PowerError(f"no board is left to this daemon: {'; '.join(chosen.warnings)}")
        for board, handle in found:
            if board in chosen.boards:
                self._take(board, handle)

    def _take(self, board: Board, handle: Any) -> None:
        self._handles[board.uuid] = handle
        self._handles |= {instance.id: each for instance, each in mig_instances(handle)}
        if board.uuid in self._devices:
            return
        ours = our_instances(board, self._wanted or (), os.environ)
        device = self._devices[board.uuid] = describe(board, handle, ours)
        if (absent := self._counters.get(board.uuid)) is not None:
            absent.watts_limit = device.watts_limit
            return
        counter = DeviceCounter(board.uuid, _METER, self._life, watts_limit=device.watts_limit)
        if board.uuid in self._marks:
            counter.resume(self._marks[board.uuid])
        self._counters[board.uuid] = counter

    def _is_absent(self, device: str, mark: Mark) -> bool:
        """Whether an earlier daemon of this boot metered it as one of NVML's, and NVML shows it no more; what the config leaves
        out is shown."""
        life = mark.counter_epoch.rpartition(":")[0]
        return device.startswith("GPU-") and life == self._life and device not in self._seen

    def _retry_later(self) -> None:
        if self._retry_at is None:
            self._retry_at = self._clock.monotonic() + _RETRY_S

    def _reopen_if_due(self) -> None:
        if self._retry_at is None or self._clock.monotonic() < self._retry_at:
            return
        self._retry_at = None
        if not self._driver.acquire(timeout=_HELD_S):
            self._retry_later()  # the sampler's read hangs
            return
        try:
            self._reopen()
        finally:
            self._driver.release()

    def _reopen(self) -> None:
        before = len(self._devices)
        _shut()
        try:
            self._open()
        except (PowerError, InputError) as e:
            self._warn(str(e))
            self._retry_later()
        if self._counters.keys() - self._handles.keys():
            self._retry_later()
        for device in self.devices[before:]:
            log.warning("%s (%s) answers now and is metered", device.id, device.name)

    def _tell_absence(self, error: PowerError) -> None:
        """A box that never had a board of NVIDIA's is none that lost one."""
        cause = error.__cause__
        missing = isinstance(cause, pynvml.NVMLError) and cause.value == _NO_LIBRARY
        level = logging.INFO if missing and not has_nvidia_board() else logging.WARNING
        log.log(level, "no GPU is metered, jobs get none: %s; tried again every %.0f s", error, _RETRY_S)
        self._said.add(str(error))

    def _warn(self, message: str) -> None:
        """Once: what stays as it is need not be said every half minute."""
        if message not in self._said:
            self._said.add(message)
            log.warning("%s", message)

    # ---- reading

    def _sample(self, uuid: str) -> Sample:
        if uuid not in self._handles:
            now, monotonic, awake_s = self._clock.now(), self._clock.monotonic(), self._clock.awake()
            return Sample(
                now, monotonic, error="the board does not answer", awake_s=awake_s, life_over=self._unloaded
            )
        # the counter is read first and the time right after it: that is the instant the energy belongs to
        counter, problem = self._counter(uuid)
        now, monotonic, awake_s = self._clock.now(), self._clock.monotonic(), self._clock.awake()
        if problem is not None:
            over = self._unloaded or problem.value in _LIFE_OVER
            return Sample(now, monotonic, error=str(power_error(problem)), awake_s=awake_s, life_over=over)
        try:
            watts: float | None = _power_w(self._handles[uuid])
        except pynvml.NVMLError as e:
            if counter is None:
                self._lost(e)
                return Sample(now, monotonic, error=str(power_error(e)), awake_s=awake_s)
            watts = None
        between = () if self._sampler is None else self._sampler.take(uuid, until_s=awake_s)
        return Sample(now, monotonic, counter, watts, awake_s=awake_s, between=between)

    def _watts(self, uuid: str) -> float | None:
        """For the sampler, in its thread: what is wrong with a board is told by the samples."""
        with self._driver:
            handle = self._handles.get(uuid)
            return None if handle is None else ask(lambda: _power_w(handle))

    def _counter(self, uuid: str) -> tuple[int | None, pynvml.NVMLError | None]:
        """(millijoules, None), (None, None) for a device that has no counter now, or (None, what went wrong)."""
        now = self._clock.monotonic()
        if now < self._ask_at.get(uuid, 0.0):
            return None, None
        try:
            counter = int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handles[uuid]))
        except pynvml.NVMLError as e:
            if e.value in _REFUSED:
                return None, self._refused(uuid, e, now)
            self._lost(e)
            return None, e
        self._counts.add(uuid)
        self._refused_from.pop(uuid, None)
        self._ask_at.pop(uuid, None)
        return counter, None

    def _refused(self, uuid: str, error: pynvml.NVMLError, now: float) -> pynvml.NVMLError | None:
        """The error while a counter that has worked may come back by itself; None: without one, until it is asked again."""
        since = self._refused_from.setdefault(uuid, now)
        if uuid in self._counts and now - since < _RETRY_S:
            return error
        self._warn(f"{uuid} has no energy counter; its power is integrated instead")
        self._ask_at[uuid] = now + _RETRY_S
        return None

    def _lost(self, error: pynvml.NVMLError) -> None:
        if error.value in _DRIVER_GONE:
            self._retry_later()


def _power_w(handle: Any) -> float:
    return float(pynvml.nvmlDeviceGetPowerUsage(handle)) / 1000


def _shut() -> None:
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlShutdown()

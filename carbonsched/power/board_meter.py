"""Meters boards through their vendor's library: by their energy counter if they have one, otherwise by more frequent power readings.

Only differences of a counter mean anything. Counter and power are those of the whole board, with all its instances and processes. Whatever
does not respond is retried: a driver or board that comes late is metered from then on.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from carbonsched.clock import Clock
from carbonsched.errors import InputError, PowerError
from carbonsched.model.energy import EnergyDelta
from carbonsched.power.base import Device, Mark
from carbonsched.power.boards import Board, Choice, choose, our_instances
from carbonsched.power.boot_id import boot_id
from carbonsched.power.counter import DeviceCounter
from carbonsched.power.power_sampler import PowerSampler
from carbonsched.power.sample import Sample

log = logging.getLogger(__name__)

_RETRY_S: Final = 30.0
"""Seconds between attempts to reach a driver that went away, or a counter that was refused."""
_HELD_S: Final = 1.0
"""Seconds to wait for a running read before the driver is opened again."""


class DriverError(PowerError):
    """A call to the vendor's library that failed.

    Example::

        raise DriverError("NVML: this device does not support it (code 3)", refused=True)
    """

    def __init__(
        self,
        message: str,
        *,
        refused: bool = False,
        gone: bool = False,
        life_over: bool = False,
        unloaded: bool = False,
        missing: bool = False,
    ) -> None:
        """refused: the board lacks this function. gone: handles may be invalid, so the driver has to be opened again. life_over: counters
        start from zero afterwards. unloaded: the driver is not loaded. missing: the box has neither library nor board."""
        super().__init__(message)
        self.refused, self.gone, self.life_over = refused, gone, life_over
        self.unloaded, self.missing = unloaded, missing


@dataclass(frozen=True, slots=True)
class Found:
    """The boards that a driver shows.

    Example::

        Found(((Board("GPU-1f2e", 0, "NVIDIA A100"), handle),), ("GPU 1 is not metered: ...; it is tried again",))
    """

    boards: tuple[tuple[Board, Any], ...]
    problems: tuple[str, ...] = ()
    """Boards that exist and do not respond."""


class BoardDriver(Protocol):
    """One vendor's library. Every call raises DriverError if it fails.

    Example::

        driver = NvmlDriver()
        [(board, handle)] = driver.open().boards
        millijoules = driver.counter_mj(handle)
    """

    name: str
    """Name of the meter in the rows."""
    library: str
    """Name of the library for people."""

    def open(self) -> Found: ...
    def close(self) -> None:
        """Never raises."""

    def describe(self, board: Board, handle: Any, ours: frozenset[str]) -> Device:
        """ours: the instances that jobs may be put on."""

    def instances(self, handle: Any) -> Mapping[str, Any]:
        """Handles of a board's instances, by id."""

    def counter_mj(self, handle: Any) -> int:
        """Energy since the driver was loaded, or since another event that ends with it."""

    def watts(self, handle: Any) -> float: ...
    def occupant(self, handle: Any, mine: Callable[[int], bool], *, memory: bool) -> str | None:
        """See `KnowsOccupants`; None also if it is unknown."""


class BoardMeter:
    """Our boards of those that a driver shows, by UUID.

    Example::

        meter = BoardMeter(NvmlDriver(), SystemClock())
        watts = {delta.device: delta.power_w for delta in meter.read()}
    """

    def __init__(
        self,
        driver: BoardDriver,
        clock: Clock,
        life: str | None = None,
        *,
        boards: Sequence[str | int] | None = None,
        must_answer: bool = True,
        sample_hz: float | None = None,
    ) -> None:
        """`life`: names the boot in counter epochs; None: this boot. `boards`: as `power.boards`, see `boards.choose`; None: every one that is shown.
        `sample_hz`: how often the power is read of a board whose energy is integrated from it; None: with each `read`.

        Raises PowerError where there is no device; without `must_answer` it is said and tried again. Raises InputError where
        `boards` names none of those that are here.
        """
        self._driver = driver
        self._clock, self._wanted, self._life = clock, boards, life or boot_id()
        self._handles: dict[str, Any] = {}
        self._devices: dict[str, Device] = {}
        self._counters: dict[str, DeviceCounter] = {}
        self._marks: dict[str, Mark] = {}
        self._refused_from: dict[str, float] = {}
        """Device → since when it reports that it has no counter."""
        self._ask_at: dict[str, float] = {}
        """Device without a counter → when it is tried again."""
        self._counts: set[str] = set()
        """Devices whose counter has responded."""
        self._seen: set[str] = set()
        """Boards that were seen, ours or not."""
        self._retry_at: float | None = None
        self._unloaded = False
        """The driver was not loaded at the last attempt to open it."""
        self._logged: set[str] = set()
        self._reading = threading.Lock()
        """Held during a read of the sampler's, and while the driver is opened again."""
        self._sampler = None if sample_hz is None else PowerSampler(clock, sample_hz, self._watts)
        try:
            self._open()
        except PowerError as e:
            if must_answer:
                raise
            self._log_absence(e)
            self._retry_later()

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that have responded so far."""
        return tuple(self._devices.values())

    def resume(self, marks: dict[str, Mark]) -> None:
        """See `Meter`; a board that was metered in this boot and does not respond is booked as unknown."""
        self._marks = dict(marks)
        for device, mark in marks.items():
            if self._is_absent(device, mark):
                self._warn(f"{device} was metered and does not answer: its energy is unknown until it does")
                self._counters[device] = DeviceCounter(device, self._driver.name, self._life)
                self._retry_later()
        for device, counter in self._counters.items():
            if device in marks:
                counter.resume(marks[device])

    def read(self) -> tuple[EnergyDelta, ...]:
        self._reopen_if_due()
        samples = {device: self._sample(device) for device in self._counters}
        falls = [self._counters[device].falls(sample) for device, sample in samples.items()]
        # a reloaded driver restarts all its counters; a board that fell off the bus only its own
        reloaded = falls.count(True) >= 2 and falls.count(True) > falls.count(False)
        deltas = [self._counters[device].add(sample, reloaded=reloaded) for device, sample in samples.items()]
        late = [delta for counter in self._counters.values() for delta in counter.take_late()]
        if self._sampler is not None:
            self._sampler.watch(device for device, counter in self._counters.items() if counter.wants_power)
        return (*(delta for delta in deltas if delta is not None), *late)

    def occupant(self, board: str, mine: Callable[[int], bool], *, memory: bool = True) -> str | None:
        """See `KnowsOccupants`; also of a MIG instance."""
        handle = self._handles.get(board)
        return None if handle is None else self._driver.occupant(handle, mine, memory=memory)

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
        self._driver.close()

    # ---- opening

    def _open(self) -> None:
        """Find our boards and start metering new ones. Raises PowerError, or InputError by `boards`."""
        try:
            shown = self._driver.open()
        except DriverError as e:
            self._unloaded = e.unloaded
            raise
        self._unloaded = False
        for problem in shown.problems:
            self._warn(problem)
            self._retry_later()
        found = shown.boards
        if not found:
            raise PowerError(f'{self._driver.library} shows no device: add one, or set power.gpu = "none"')
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
        self._handles |= self._driver.instances(handle)
        if board.uuid in self._devices:
            return
        ours = our_instances(board, self._wanted or (), os.environ)
        device = self._devices[board.uuid] = self._driver.describe(board, handle, ours)
        if (absent := self._counters.get(board.uuid)) is not None:
            absent.watts_limit = device.watts_limit
            return
        counter = DeviceCounter(board.uuid, self._driver.name, self._life, watts_limit=device.watts_limit)
        if board.uuid in self._marks:
            counter.resume(self._marks[board.uuid])
        self._counters[board.uuid] = counter

    def _is_absent(self, device: str, mark: Mark) -> bool:
        """Whether an earlier daemon of this boot metered it as a board, and it is no longer there; boards that the config excludes are there."""
        life = mark.counter_epoch.rpartition(":")[0]
        return device.startswith("GPU-") and life == self._life and device not in self._seen

    def _retry_later(self) -> None:
        if self._retry_at is None:
            self._retry_at = self._clock.monotonic() + _RETRY_S

    def _reopen_if_due(self) -> None:
        if self._retry_at is None or self._clock.monotonic() < self._retry_at:
            return
        self._retry_at = None
        if not self._reading.acquire(timeout=_HELD_S):
            self._retry_later()  # the sampler's read hangs
            return
        try:
            self._reopen()
        finally:
            self._reading.release()

    def _reopen(self) -> None:
        before = len(self._devices)
        self._driver.close()
        try:
            self._open()
        except (PowerError, InputError) as e:
            self._warn(str(e))
            self._retry_later()
        if self._counters.keys() - self._handles.keys():
            self._retry_later()
        for device in self.devices[before:]:
            log.warning("%s (%s) answers now and is metered", device.id, device.name)

    def _log_absence(self, error: PowerError) -> None:
        """Report missing boards; a box that never had such a board has lost none."""
        level = logging.INFO if isinstance(error, DriverError) and error.missing else logging.WARNING
        log.log(level, "no GPU is metered, jobs get none: %s; tried again every %.0f s", error, _RETRY_S)
        self._logged.add(str(error))

    def _warn(self, message: str) -> None:
        """Warn once: a lasting state need not be repeated every half minute."""
        if message not in self._logged:
            self._logged.add(message)
            log.warning("%s", message)

    # ---- reading

    def _sample(self, uuid: str) -> Sample:
        if uuid not in self._handles:
            now, monotonic, awake_s = self._clock.now(), self._clock.monotonic(), self._clock.awake()
            return Sample(
                now, monotonic, error="the board does not answer", awake_s=awake_s, life_over=self._unloaded
            )
        # the counter is read first and the time right after it: the energy belongs to that instant
        counter, problem = self._counter(uuid)
        now, monotonic, awake_s = self._clock.now(), self._clock.monotonic(), self._clock.awake()
        if problem is not None:
            over = self._unloaded or problem.life_over
            return Sample(now, monotonic, error=str(problem), awake_s=awake_s, life_over=over)
        try:
            watts: float | None = self._driver.watts(self._handles[uuid])
        except DriverError as e:
            if counter is None:
                self._lost(e)
                return Sample(now, monotonic, error=str(e), awake_s=awake_s)
            watts = None
        between = () if self._sampler is None else self._sampler.take(uuid, until_s=awake_s)
        return Sample(now, monotonic, counter, watts, awake_s=awake_s, between=between)

    def _watts(self, uuid: str) -> float | None:
        """For the sampler, in its thread; problems with a board are reported by its samples."""
        with self._reading:
            handle = self._handles.get(uuid)
            try:
                return None if handle is None else self._driver.watts(handle)
            except DriverError:
                return None

    def _counter(self, uuid: str) -> tuple[int | None, DriverError | None]:
        """(millijoules, None); (None, None) for a device without a counter now; (None, what went wrong)."""
        now = self._clock.monotonic()
        if now < self._ask_at.get(uuid, 0.0):
            return None, None
        try:
            counter = self._driver.counter_mj(self._handles[uuid])
        except DriverError as e:
            if e.refused:
                return None, self._refused(uuid, e, now)
            self._lost(e)
            return None, e
        self._counts.add(uuid)
        self._refused_from.pop(uuid, None)
        self._ask_at.pop(uuid, None)
        return counter, None

    def _refused(self, uuid: str, error: DriverError, now: float) -> DriverError | None:
        """The error while a counter that has worked may come back by itself; None: meter without it until it is tried again."""
        since = self._refused_from.setdefault(uuid, now)
        if uuid in self._counts and now - since < _RETRY_S:
            return error
        self._warn(f"{uuid} has no energy counter; its power is integrated instead")
        self._ask_at[uuid] = now + _RETRY_S
        return None

    def _lost(self, error: DriverError) -> None:
        if error.gone:
            self._retry_later()

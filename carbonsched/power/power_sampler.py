"""Reads the power of some boards many times between two samples, in a thread of its own.

The thread runs only while there are such boards. It shares the driver with the meter: a read that hangs blocks only this thread, and shows
as a gap between two readings. Nothing waits for it that could go on without.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Final

from carbonsched.clock import Clock
from carbonsched.periodic import Periodic
from carbonsched.power.power_trace import PowerReading

_END_S: Final = 1.0
"""Seconds that `close` waits for a running read."""
_KEPT_S: Final = 120.0
"""Readings kept, in seconds, for a meter that does not fetch them."""


class PowerSampler:
    """The power of the watched boards, read `hz` times a second.

    Example::

        sampler = PowerSampler(clock, 10.0, lambda board: nvmlDeviceGetPowerUsage(handles[board]) / 1000)
        sampler.watch(["GPU-1"])
        readings = sampler.take("GPU-1", until_s=clock.awake())
    """

    def __init__(self, clock: Clock, hz: float, read: Callable[[str], float | None]) -> None:
        """`read`: watts of a board; None where it does not say. It is called in the sampler's thread."""
        self._clock, self._hz, self._read = clock, hz, read
        self._readings: dict[str, list[PowerReading]] = {}
        self._thread: Periodic | None = None
        self._lock = threading.Lock()
        """Of the readings; never held while the driver is asked."""

    def watch(self, boards: Iterable[str]) -> None:
        """Read these boards from now on, and no others."""
        with self._lock:
            self._readings = {board: self._readings.get(board, []) for board in boards}
        if self._readings and self._thread is None:
            self._thread = Periodic("power", self._poll, 1 / self._hz)
            self._thread.start()
        elif not self._readings and self._thread is not None:
            self.close()

    def take(self, board: str, until_s: float) -> tuple[PowerReading, ...]:
        """Return and drop a board's readings up to a time; later ones are for the next call."""
        if not self._readings.get(board):
            return ()
        with self._lock:
            readings = self._readings.get(board, [])
            taken = tuple(reading for reading in readings if reading.at_s <= until_s)
            del readings[: len(taken)]
        return taken

    def close(self) -> None:
        """Stop reading; a read that hangs is not waited for."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop(_END_S)

    def _poll(self) -> None:
        for board in tuple(self._readings):
            watts = self._read(board)
            at_s = self._clock.awake()
            if watts is not None:
                self._keep(board, PowerReading(at_s, watts))

    def _keep(self, board: str, reading: PowerReading) -> None:
        with self._lock:
            readings = self._readings.get(board)
            if readings is not None:
                readings.append(reading)
                del readings[: max(len(readings) - int(_KEPT_S * self._hz), 0)]

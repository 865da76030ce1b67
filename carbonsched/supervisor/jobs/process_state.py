"""Keeps the state of a job's process: since when it is alive, on which devices, and why it was asked to end."""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from carbonsched.model.job_state import JobState

MOST_SPANS = 10_000
"""Spans kept per process; older ones are metered and written."""
_CUTS, _CUTS_A_SECOND = 60, 20
"""Pieces that energy is cut into because of a job: one that changes its ρ a thousand times a second must not make a thousand rows."""


@dataclass(frozen=True, slots=True)
class EnergySpan:
    """From `start` on, the job's energy belongs to this segment.

    Example:
        >>> EnergySpan(datetime(2026, 11, 1), segment=0, rho=None).segment
        0
    """

    start: datetime
    segment: int | None
    rho: float | None


@dataclass(frozen=True, slots=True)
class BoardPart:
    """The part of a board that a process has: all of it, or a MIG instance.

    Example:
        >>> BoardPart("MIG-1f2e", share=2 / 7).id
        'MIG-1f2e'
    """

    id: str = ""
    """Empty: the whole board, alone or in equal parts with other jobs on it."""
    share: float = 1.0
    """Share of the board's energy: the instance's slices over those of all instances."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Devices for a process to run on.

    Example:
        >>> Seat(("GPU-1f2e", "host")).part.share
        1.0
    """

    devices: tuple[str, ...]
    part: BoardPart = BoardPart()


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a process is asked to end.

    Example:
        >>> Ending(JobState.PAUSED, "paused by ada").wake_at is None
        True
    """

    target: JobState
    """The state the job moves to once its process has ended."""
    reason: str
    wake_at: datetime | None = None
    """When the job gets its next process, if it is to wait for one."""


@dataclass(slots=True)
class ProcessState:
    """The process of a job, if it has one.

    Example:
        >>> process = ProcessState()
        >>> process.begin(datetime(2026, 11, 1), ("GPU-0",))
        >>> process.alive, process.devices
        (True, ('GPU-0',))
        >>> process.end(Ending(JobState.PAUSED, "paused by ada"), kill_at=60.0)
        >>> process.target.value
        'paused'
    """

    devices: tuple[str, ...] = ()
    part: BoardPart = BoardPart()
    alive_from: datetime | None = None
    """Start of the process; None while there is none."""
    alive_to: datetime | None = None
    """When the process ended, until its last events are read and the job has moved on."""
    known_until: datetime | None = None
    """Of a process that an earlier daemon metered: the last time it is known to have lived; None: this daemon has seen it alive."""
    spans: list[EnergySpan] = field(default_factory=list)
    """Which segment the energy belongs to; ascending."""
    asleep: dict[int | None, float] = field(default_factory=dict)
    """Segment → seconds of it during which the box was suspended."""
    starting: bool = False
    """Whether the launcher is still starting it: the process cannot be seen yet."""
    power_w: float | None = None
    protocol_noted: bool = False
    """Whether the history says what this process is not told because its protocol is older."""
    target: JobState | None = None
    """The state the job moves to once its process has ended: after cancel, pause, a stop on budget, or a long wait."""
    target_reason: str = ""
    kill_at: float | None = None
    """Monotonic time after which a process that was asked to end is killed."""
    wake_at: datetime | None = None
    """End of the wait for which the process ends."""

    @property
    def alive(self) -> bool:
        """Whether there is a process, or one whose end has not been handled yet."""
        return self.alive_from is not None

    @property
    def segment(self) -> int | None:
        """The segment that energy is charged to now."""
        return self.spans[-1].segment if self.spans else None

    def lived_at(self, at: datetime) -> bool:
        return (
            self.alive_from is not None
            and self.alive_from <= at
            and (self.alive_to is None or at < self.alive_to)
        )

    def place(self, devices: tuple[str, ...]) -> None:
        """Assign these devices to the process that is about to start."""
        self.devices = devices

    def begin(self, at: datetime, devices: tuple[str, ...], part: BoardPart = BoardPart()) -> None:
        """A process was started: forget what belonged to the last one."""
        self.leave()
        self.alive_from, self.devices, self.part = at, devices, part
        self.spans = [EnergySpan(at, None, None)]

    def leave(self, wake_at: datetime | None = None) -> None:
        """The process is gone; `wake_at`: when to start the next one."""
        self.alive_from, self.alive_to, self.devices, self.power_w = None, None, (), None
        self.known_until = None
        self.part, self.asleep, self.protocol_noted, self.starting = BoardPart(), {}, False, False
        self.target, self.target_reason, self.kill_at, self.wake_at = None, "", None, wake_at

    def launch(self) -> None:
        """The launcher has begun."""
        self.starting = True

    def launched(self) -> None:
        """The process now exists."""
        self.starting = False

    def note_protocol(self) -> None:
        """The history now says what this process is not told."""
        self.protocol_noted = True

    def close(self, at: datetime) -> None:
        """The process ended at this time; its last events may still have to be read."""
        self.alive_to = at

    def take_over(self, known_until: datetime) -> None:
        """An earlier daemon metered it: nobody has seen it alive since."""
        self.known_until = known_until

    def see(self) -> None:
        """It lives."""
        self.known_until = None

    def end(self, ending: Ending, kill_at: float | None = None) -> None:
        """Ask the process to end; a second call does not delay its kill."""
        self.target, self.target_reason = ending.target, ending.reason
        self.wake_at = ending.wake_at or self.wake_at
        if self.kill_at is None:
            self.kill_at = kill_at

    def forget_kill(self) -> None:
        """The process was killed; do not kill it again."""
        self.kill_at = None

    def note_power(self, watts: float | None) -> None:
        self.power_w = watts

    def shift(self, step: timedelta) -> None:
        """The wall clock was set: move recorded times to the new clock."""
        if self.alive_from is not None:
            self.alive_from += step
        if self.alive_to is not None:
            self.alive_to += step
        if self.known_until is not None:
            self.known_until += step
        if self.wake_at is not None:
            self.wake_at += step
        self.spans = [replace(span, start=span.start + step) for span in self.spans]

    def sleep(self, seconds: float) -> None:
        """The box was suspended and the process with it: it is killed that much later."""
        if self.kill_at is not None:
            self.kill_at += seconds
        if self.alive:
            self.asleep[self.segment] = self.asleep.get(self.segment, 0.0) + seconds

    def enter(self, segment: int | None, at: datetime, rho: float | None = None) -> None:
        """From `at` on, energy belongs to this segment."""
        last = self.spans[-1] if self.spans else None
        if last and (last.segment, last.rho) == (segment, rho):
            return
        # an event may lie a hair before the start of its span, and spans must ascend
        start = max(at, last.start) if last else at
        self.spans.append(EnergySpan(start, segment, rho))
        if len(self.spans) > MOST_SPANS:
            first = next(span for span in self.spans if span.segment == segment)
            newest = self.spans[-MOST_SPANS // 2 :]
            self.spans = newest if first in newest else [first, *newest]

    def cuts(self, start: datetime, end: datetime) -> list[datetime]:
        """Times between `start` and `end` at which segment or ρ changes; thinned out if there are very many."""
        found: list[datetime] = []
        for span in reversed(self.spans):
            if span.start <= start:
                break
            if span.start < end and (not found or span.start < found[-1]):
                found.append(span.start)
        most = _CUTS + _CUTS_A_SECOND * (end - start).total_seconds()
        return found if len(found) <= most else found[:: math.ceil(len(found) / most)]

    def span_at(self, at: datetime) -> EnergySpan | None:
        """The span that energy used at this time belongs to."""
        return next((span for span in reversed(self.spans) if span.start <= at), None)

    def segment_start(self, segment: int, end: datetime) -> datetime:
        """When the energy of a segment that ended at `end` began to be its own."""
        starts = [span.start for span in self.spans if span.segment == segment and span.start < end]
        return starts[0] if starts else end

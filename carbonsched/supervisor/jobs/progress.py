"""Keeps how far a job has come: a fold over its trainer's events."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from carbonsched.model.protocol import (
    MOST_SEGMENTS,
    Checkpoint,
    Evaluated,
    Event,
    Failed,
    Finished,
    Resumed,
    SegmentDone,
    SegmentReady,
    Started,
    Step,
    Waiting,
)
from carbonsched.supervisor.jobs.step_pace import StepPace


@dataclass(slots=True)
class Progress:
    """What the trainer has reported so far; a restart of the daemon rebuilds the same state.

    Example:
        >>> from carbonsched.model.protocol import EVENTS
        >>> progress = Progress()
        >>> line = '{"at": "2026-11-01T12:00:00Z", "event": "waiting", "k": 0, "step": 0, "until": null, "reason": "dirty"}'
        >>> progress.fold(EVENTS.validate_json(line), now_s=1.0, alive_from=None)
        >>> progress.waiting.reason
        'dirty'
    """

    started: Started | None = None
    ready: SegmentReady | None = None
    """The segment that waits for a directive or runs under one; None between segments."""
    ready_seen_s: float = 0.0
    """Monotonic time at which `ready` was read."""
    gains: dict[int, float] = field(default_factory=dict)
    """Segment → importance at the right end of its frontier."""
    done: list[SegmentDone] = field(default_factory=list)
    evaluated: list[Evaluated] = field(default_factory=list)
    checkpoint: Checkpoint | None = None
    finished: Finished | None = None
    failed: Failed | None = None
    waiting: Waiting | None = None
    step: int | None = None
    loss: float | None = None
    loaded: bool = False
    """Whether this process has reached a segment."""
    load_s: float | None = None
    """Seconds from the process's start to its first segment: the estimate for another start."""
    last_event_at: datetime | None = None
    events: int = 0
    """Number of events that this process has sent."""
    stepped: Step | None = None
    """The last step event of this process."""
    pace: StepPace = field(default_factory=StepPace)

    @property
    def segments(self) -> int | None:
        """Segments of the job in all; None before its trainer has announced them."""
        if self.ready is not None:
            return self.ready.segments
        return self.started.segments if self.started else None

    def begin(self) -> None:
        """A process was started: what the last one reported about itself no longer holds."""
        self.started = self.ready = self.finished = self.failed = self.waiting = None
        self.last_event_at, self.loaded = None, False
        self.events, self.stepped = 0, None
        self.pace.forget()

    def shift(self, step: timedelta) -> None:
        """The wall clock was set: move earlier times to the new clock."""
        self.pace.interrupt()
        if self.last_event_at is not None:
            self.last_event_at += step
        if self.stepped is not None:
            self.stepped = self.stepped.model_copy(update={"at": self.stepped.at + step})

    def is_last(self, done: SegmentDone) -> bool:
        return done.last or (self.segments is not None and done.k + 1 >= self.segments)

    def fold(self, event: Event, now_s: float, alive_from: datetime | None) -> None:
        """Fold one event in. now_s: monotonic time; alive_from: the start of the process that sent it."""
        self.last_event_at = event.at
        self.events += 1
        self._pace(event)
        match event:
            case Started():
                self.started, self.step = event, event.first_step
                # a resumed job repeats the segments after its checkpoint, so their earlier reports no longer hold
                self.done = [d for d in self.done if d.first_step + d.steps <= event.first_step]
            case Evaluated():
                self.evaluated.append(event)
            case SegmentReady():
                self.loaded = True
                if self.load_s is None and alive_from is not None:
                    self.load_s = max((event.at - alive_from).total_seconds(), 0.0)
                self.ready, self.ready_seen_s, self.waiting = event, now_s, None
                if event.frontier and event.k < (event.segments or MOST_SEGMENTS):
                    self.gains[event.k] = event.frontier[-1].importance
            case Step():
                self.stepped = event
                self.step, self.waiting = event.step, None
                self.loss = event.loss if event.loss is not None else self.loss
            case SegmentDone():
                # the ledger keeps the names; here they would be most of the daemon's memory
                self.done.append(event.model_copy(update={"selected": ()}))
                self.step = event.first_step + event.steps
                self.loss = event.loss if event.loss is not None else self.loss
                self.ready = None
            case Checkpoint():
                self.checkpoint = event
            case Waiting():
                self.waiting = event
            case Resumed():
                self.waiting = None
            case Finished():
                self.finished = event
            case Failed():
                # with several processes, the first failure makes the others fail too
                self.failed = self.failed or event

    def _pace(self, event: Event) -> None:
        match event:
            case Step():
                self.pace.add(event)
            case SegmentReady() | SegmentDone():
                self.pace.forget()
            case Resumed() | Checkpoint():
                self.pace.interrupt(event.at)
            case Waiting() | Evaluated():
                self.pace.interrupt()

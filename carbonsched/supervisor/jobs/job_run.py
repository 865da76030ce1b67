"""What the daemon knows of one job while it is not over: a fold over its events, rebuilt alike after a restart."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from carbonsched.clock import Clock
from carbonsched.model.job import JobSpec, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import (
    Checkpoint,
    Directive,
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
from carbonsched.plan.problem import Plan
from carbonsched.supervisor.budgets.accrual import Accrual
from carbonsched.supervisor.jobs.event_follower import EventFollower

if TYPE_CHECKING:
    from carbonsched.plan.energy_fit import EnergyFit
    from carbonsched.supervisor.estimates.evaluation_cost import EvaluationCost


@dataclass(frozen=True, slots=True)
class EnergySpan:
    """From `start` on, the job's energy belongs to this segment."""

    start: datetime
    segment: int | None
    rho: float | None


@dataclass(slots=True)
class JobRun:
    job: SubmittedJob
    dir: Path
    follower: EventFollower
    state: JobState
    reason: str
    budget_g: float | None
    """Grams the job may emit in all, as of now: what every guard holds against. None: not resolved yet, or none."""
    checked: CheckResult | None = None
    """What the trainer's check foresaw, where the job came with it."""
    looks: "EvaluationCost | None" = None
    """What looking at its held-out rows should take, until the first look was seen."""
    accrual: Accrual | None = None
    """Of a budget that grows with time."""
    needs_g: float = 0.0
    """Of a pool's job: the floor it needs to be let in."""
    replan: bool = False
    """Its budget was changed: plan anew, also in mid-segment."""
    devices: tuple[str, ...] = ()
    alive_from: datetime | None = None
    """The process's start; None while there is none."""
    alive_to: datetime | None = None
    """When the process ended, until all that it said is read and it is decided where the job goes."""
    stretches: list[EnergySpan] = field(default_factory=list)

    started: Started | None = None
    ready: SegmentReady | None = None
    """Of the segment that waits for a directive or runs under one; None between segments."""
    ready_seen_s: float = 0.0
    """Monotonic time `ready` was read."""
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

    directive: Directive | None = None
    plan: Plan | None = None
    planned_at: float = 0.0
    eased_at: float = 0.0
    """Monotonic time of the last look at whether ρ must fall in mid-segment."""
    fit: "EnergyFit | None" = None
    target: JobState | None = None
    """Where the job goes once its process has ended: cancel, pause, stop on budget, long wait."""
    target_reason: str = ""
    kill_at: float | None = None
    """Monotonic time after which a process that was asked to end is killed."""
    wake_at: datetime | None = None
    """End of a wait that is too long to stay resident."""

    last_word: datetime | None = None
    """Time of the last event."""
    unsaved: list[Event] = field(default_factory=list)
    """Events whose consequences are not in the ledger yet."""
    learnt: int = 0
    """How many of them the energy model has seen."""
    recorded: int = 0
    """Bytes of events.jsonl whose consequences are in the ledger."""
    spent_mj: int = 0
    spent_g: float = 0.0
    unknown_s: float = 0.0
    reserved_g: float = 0.0
    """What the unknown stretches could have cost at the worst: the budget is held against this too."""
    estimated: bool = False
    power_w: float | None = None
    begun_g: float = 0.0
    """What was charged when the process was started."""
    loaded: bool = False
    """Whether this process has come to a segment."""
    load_s: float | None = None
    """From the process's start to its first segment: what another start will take."""
    segment_mj: dict[int | None, int] = field(default_factory=dict)
    """Of this process, as is `busy`: a segment that is done again is another one to the energy model."""
    busy: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Segment → millijoules and seconds in which steps ran; waiting and importance apart."""

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def spec(self) -> JobSpec:
        return self.job.spec

    @property
    def loading(self) -> bool:
        """Alive, and has not said yet what lies ahead of it."""
        return self.alive_from is not None and not self.loaded

    @property
    def segment(self) -> int | None:
        return self.stretches[-1].segment if self.stretches else None

    @property
    def segments(self) -> int | None:
        if self.ready is not None:
            return self.ready.segments
        return self.started.segments if self.started else None

    @property
    def deadline(self) -> datetime | None:
        after = self.spec.carbon.deadline
        return None if after is None else self.job.submitted_at + timedelta(seconds=after)

    @property
    def charged_g(self) -> float:
        """What the budget is held against: known grams and the worst case of the unknown."""
        return self.spent_g + self.reserved_g

    def since(self, done: SegmentDone) -> datetime:
        """When the energy of a segment that ended began to be its own."""
        starts = [s.start for s in self.stretches if s.segment == done.k and s.start < done.at]
        return starts[0] if starts else done.at

    def begin(self, at: datetime, devices: tuple[str, ...]) -> None:
        """A process was started: forget what belonged to the one before."""
        self.leave()
        self.alive_from, self.devices = at, devices
        self.stretches = [EnergySpan(at, None, None)]
        self.started = self.ready = self.finished = self.failed = self.waiting = None
        self.last_word, self.segment_mj, self.busy = None, {}, {}
        self.begun_g, self.loaded = self.charged_g, False

    def leave(self, wake_at: datetime | None = None) -> None:
        """The process is gone."""
        self.alive_from, self.alive_to, self.devices, self.power_w = None, None, (), None
        self.target, self.target_reason, self.kill_at, self.wake_at = None, "", None, wake_at

    def shift(self, step: timedelta) -> None:
        """The wall clock was set: what happened before happened by the new one."""
        if self.alive_from is not None:
            self.alive_from += step
        if self.last_word is not None:
            self.last_word += step
        self.stretches = [replace(stretch, start=stretch.start + step) for stretch in self.stretches]

    def enter(self, segment: int | None, at: datetime, rho: float | None = None) -> None:
        last = self.stretches[-1] if self.stretches else None
        if last and (last.segment, last.rho) == (segment, rho):
            return
        # an event's time may lie a hair before the stretch it follows: stretches must ascend
        start = max(at, last.start) if last else at
        self.stretches.append(EnergySpan(start, segment, rho))

    def apply(self, event: Event, clock: Clock) -> Event:
        """Fold one event in. Energy of a segment runs from the end of the one before to its own `segment_done`.

        Returns it as it counts: a time that lies ahead of the clock, which was set back or is not the trainer's, is now.
        """
        if event.at > (now := clock.now()):
            event = event.model_copy(update={"at": now})
        self.last_word = event.at
        match event:
            case Started():
                self.started, self.step = event, event.first_step
                # a resumed job repeats the segments behind its checkpoint: what they had said no longer holds
                self.done = [d for d in self.done if d.first_step + d.steps <= event.first_step]
            case Evaluated():
                self.evaluated.append(event)
                if event.when == "before" and self.segment is None:
                    self.enter(0, event.at)
            case SegmentReady():
                self.loaded = True
                if self.load_s is None and self.alive_from is not None:
                    self.load_s = max((event.at - self.alive_from).total_seconds(), 0.0)
                self.ready, self.ready_seen_s, self.waiting = event, clock.monotonic(), None
                if event.frontier:
                    self.gains[event.k] = event.frontier[-1].importance
                self.enter(event.k, event.at)
            case Step():
                self.step, self.waiting = event.step, None
                self.loss = event.loss if event.loss is not None else self.loss
                self.enter(event.k, event.at, event.rho)
            case SegmentDone():
                # the names go to the ledger; kept here they would be most of the daemon's memory
                self.done.append(event.model_copy(update={"selected": ()}))
                self.step = event.first_step + event.steps
                self.loss = event.loss if event.loss is not None else self.loss
                last = self.segments is not None and event.k + 1 >= self.segments
                self.ready = None
                self.enter(None if last else event.k + 1, event.at)
            case Checkpoint():
                self.checkpoint = event
            case Waiting():
                self.waiting = event
            case Resumed():
                self.waiting = None
            case Finished():
                self.finished = event
            case Failed():
                self.failed = event
        return event

"""Holds what the daemon knows of one job that is not over: its account, its process, its progress and its orders.

Each of the three parts is changed in its own file alone. Other packages call the verbs here and assign to nothing, which
a test holds. All of it is rebuilt alike after a restart: `carbonsched.supervisor.recovery`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from carbonsched.clock import Clock
from carbonsched.model.allowed_hours import stretches
from carbonsched.model.energy import BudgetAccount, Interval
from carbonsched.model.job import CommandPart, JobSpec, SubmittedJob
from carbonsched.model.job_state import JobState
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import (
    Directive,
    Evaluated,
    Event,
    RunRecord,
    SegmentDone,
    SegmentReady,
    Started,
    Step,
    Warned,
)
from carbonsched.plan.clocks import OWN
from carbonsched.plan.clocks import Clock as GraphicsClock
from carbonsched.supervisor.jobs.account import JobAccount
from carbonsched.supervisor.jobs.event_follower import EventFollower
from carbonsched.supervisor.jobs.event_limit import EventLimit
from carbonsched.supervisor.jobs.process_state import BoardPart, Ending, ProcessState
from carbonsched.supervisor.jobs.progress import Progress
from carbonsched.text import duration
from carbonsched.text import grams as show_grams

_HOURS_AHEAD = timedelta(days=8)
"""How far allowed hours are looked for: one comes within a week."""
_KEPT = (Started, SegmentDone, Evaluated, Warned)
"""Events that become rows, or that others learn from."""
MOST_ROWS = 200
"""That one tick makes of a job's events; the next go on with the next tick."""
MOST_UNSAVED = 1000
"""Events that wait for a ledger which refuses them: no more are read then."""


@dataclass(frozen=True, slots=True)
class PlanNote:
    """What is kept of the last plan of a job.

    Example:
        >>> PlanNote(made_s=5.0, price=0.02, end_s=3600.0).price
        0.02
    """

    made_s: float = 0.0
    """Monotonic time of the decision."""
    price: float | None = None
    """λ in gain per gram: the next search starts there."""
    end_s: float | None = None
    """Seconds from then to the end of the last segment; None where nothing was planned."""
    steps: int | None = None
    """Of the whole job, estimated, where how many it takes is open."""
    step_j: float | None = None
    """Joules that a full step was reckoned to take."""


@dataclass(slots=True)
class JobRun:
    """One job that is not over.

    Example::

        run.begin(clock.now(), ("GPU-0",))
        for event in run.follower.read():
            run.apply(event, clock)
        assert run.account.charged_g <= run.budget_g
    """

    job: SubmittedJob
    dir: Path
    follower: EventFollower
    state: JobState
    reason: str
    budget_g: float | None
    """Grams the job may emit in all, as of now: what every guard holds against. None: not resolved yet, or none."""
    checked: CheckResult | None = None
    """What the trainer's check foresaw, where the job came with it."""
    account: JobAccount = field(default_factory=JobAccount)
    process: ProcessState = field(default_factory=ProcessState)
    progress: Progress = field(default_factory=Progress)
    limit: EventLimit = field(default_factory=EventLimit)

    failed: int = 0
    """Attempts that failed, of those that `queue.max_attempts` allows."""
    needs_g: float = 0.0
    """Of a pool's job: the floor it needs to be let in."""
    directive: Directive | None = None
    plan: PlanNote | None = None
    """Of the process that runs; None before its first decision."""
    clock: GraphicsClock = OWN
    """What the next segment's steps are reckoned at: the board's graphics clock."""
    replan: bool = False
    """Its budget was changed: plan anew, also in mid-segment."""
    eased_s: float = 0.0
    """Monotonic time at which ρ was last checked in mid-segment."""
    look_s: float = 60.0
    """Seconds between two such looks."""

    found: RunRecord | None = None
    """Its process, where the journal does not know of it yet."""
    warned: bool = False
    """It was told that it nears its budget."""
    trouble: str = ""
    """What went wrong with it in the last tick and is tried again; empty: nothing."""
    odd: tuple[str, str] = ("", "")
    """What it does against what it was told, or that it is silent: which of the two, and in words."""
    aside: str = ""
    """Why the daemon cannot go on with it for now: it is charged and shown, but neither started nor directed."""
    aside_s: float = 0.0
    """Monotonic time since when."""
    unheard: str = ""
    """Why what its trainer says cannot be read; empty: it can."""
    unheard_s: float = 0.0
    """Monotonic time since when."""

    unsaved: list[Event] = field(default_factory=list)
    """Events whose consequences are not in the ledger yet."""
    learnt: int = 0
    """How many of them the energy model has seen."""
    stepped: timedelta = timedelta()
    """By how much the wall clock was set since this daemon has known the job."""
    recorded: int = 0
    """Bytes of events.jsonl whose consequences are in the ledger."""

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def spec(self) -> JobSpec:
        return self.job.spec

    @property
    def command(self) -> CommandPart | None:
        """What `carbonsched run` was given; None for a job of ours."""
        return self.spec.command

    @property
    def steered(self) -> bool:
        """Whether it is told what to do: every job of ours, and a command that has a budget and speaks the protocol."""
        return self.command is None or (self.budget_g is not None and self.progress.started is not None)

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def charged_g(self) -> float:
        """What the budget is held against: known grams and the worst case of the unknown."""
        return self.account.charged_g

    @property
    def part_g(self) -> float:
        """What it may still spend; 0 where its budget is not known."""
        return (self.budget_g or self.charged_g) - self.charged_g

    @property
    def loading(self) -> bool:
        """Alive, and has not said yet what lies ahead of it."""
        return self.alive and not self.progress.loaded

    @property
    def deadline(self) -> datetime | None:
        after = self.spec.carbon.deadline
        return None if after is None else self.job.submitted_at + self.stepped + timedelta(seconds=after)

    def amid_s(self, now: datetime) -> float:
        """Seconds that the step under way has taken so far, by the events heard; 0 where none is known to run."""
        began, progress = self.progress.pace.began, self.progress
        if began is None or progress.ready is None or progress.waiting is not None:
            return 0.0
        return max((now - began).total_seconds(), 0.0)

    def opens_at(self, now: datetime) -> datetime | None:
        """When the job may train next, where it may not now; None: now."""
        if not self.spec.carbon.allowed_hours:
            return None
        start, _ = self.allowed_from(now)[0]
        return start if start > now else None

    def allowed_from(self, now: datetime, until_s: float = 0.0) -> list[tuple[datetime, datetime]]:
        """(start, end) of the hours in which the job may train, ascending, at least to the next ones.

        Only for a job that has `allowed_hours`. until_s: seconds from now to which they are wanted.
        """
        carbon = self.spec.carbon
        end = now + max(timedelta(seconds=until_s), _HOURS_AHEAD)
        return list(stretches(carbon.allowed_hours, carbon.timezone, now, end))

    def held_back(self, now: datetime) -> str:
        """Why a queued job may not start yet: outside its hours, or its pool cannot pay for its floor; empty: it may."""
        opens, pool = self.opens_at(now), self.spec.carbon.pool
        if opens is not None:
            return f"waits for its allowed hours, from {opens:%Y-%m-%d %H:%M} UTC"
        if pool is not None and (self.part_g <= 0 or self.part_g < self.needs_g * (1 - 1e-9)):
            return f"waits for pool {pool}: needs {show_grams(self.needs_g)}, {show_grams(self.part_g)} are its part"
        return ""

    def over_time(self, now: datetime) -> str:
        """Why its process has to end by its time limit; empty: it has not."""
        limit, began = self.spec.queue.time_limit, self.process.alive_from
        if limit is None or began is None or self.process.alive_to is not None:
            return ""
        ran_s = (now - began).total_seconds() - sum(self.process.asleep.values())
        return f"its time limit of {duration(limit)} is over" if ran_s >= limit else ""

    # ---- its state and its budget

    def move(self, state: JobState, reason: str) -> None:
        self.state, self.reason = state, reason

    def note_failed(self, failed: int) -> None:
        """So many of its attempts have failed."""
        self.failed = failed

    def grant(self, budget_g: float) -> None:
        """This is its budget now."""
        self.budget_g = budget_g

    def require(self, floor_g: float) -> None:
        """Its pool must pay this much before it may start."""
        self.needs_g = floor_g

    def run_at(self, clock: GraphicsClock) -> None:
        """Reckon with this clock from now on."""
        self.clock = clock

    def restate(self, now: JobAccount, told: Iterable[tuple[int | None, int]]) -> None:
        """Energy of it that was unknown was told: see `JobAccount.restate`."""
        self.account.restate(now, told)

    def note_warning(self) -> None:
        """It was told that it nears its budget."""
        self.warned = True

    def request_plan(self) -> None:
        """Plan anew at the next tick, also in mid-segment."""
        self.replan = True

    # ---- what is wrong with it

    def note_trouble(self, text: str) -> None:
        """It could not be looked after in this tick."""
        self.trouble = text

    def note_odd(self, kind: str, text: str) -> None:
        """It goes on against its directive, or is silent; empty: it does what it should."""
        self.odd = (kind, text)

    def forget_trouble(self) -> None:
        """A new tick begins."""
        self.trouble = ""

    def set_aside(self, reason: str, now_s: float) -> None:
        """The daemon cannot go on with it for now."""
        self.aside, self.aside_s = reason, now_s

    # ---- its process

    def place(self, devices: tuple[str, ...]) -> None:
        """Before a start on these devices: what the process before was told is over."""
        self.process.place(devices)
        self.directive, self.plan = None, None

    def begin(self, at: datetime, devices: tuple[str, ...], part: BoardPart = BoardPart()) -> None:
        """A process was started: forget what belonged to the one before."""
        self.process.begin(at, devices, part)
        self.progress.begin()
        self.limit = EventLimit.of_process(at)
        self.odd = ("", "")
        self.account.begin()

    def take_up(self, found: RunRecord, now: datetime) -> None:
        """A process that ran, or runs, though nobody noted its start; its devices are still to be told (`begin`)."""
        self.begin(min(found.started_at, now), ())
        self.found = found

    def leave(self, wake_at: datetime | None = None) -> None:
        """The process is gone; `wake_at`: when the job is to have another."""
        self.odd = ("", "")
        self.process.leave(wake_at)

    def end(self, ending: Ending, kill_at: float | None = None) -> None:
        """The process is to end, and where the job goes then."""
        self.process.end(ending, kill_at)
        self.reason = ending.reason

    def shift(self, step: timedelta) -> None:
        """The wall clock was set: what happened before happened by the new one, and what was planned by the old one is
        planned anew."""
        self.process.shift(step)
        self.progress.shift(step)
        self.limit.shift(step)
        self.stepped += step
        self.request_plan()

    def sleep(self, seconds: float) -> None:
        """The box was suspended: what a process has so long for, it has still, and what is planned is planned anew."""
        self.process.sleep(seconds)
        self.progress.pace.interrupt()
        self.aside_s, self.unheard_s = self.aside_s + seconds, self.unheard_s + seconds
        self.request_plan()

    def charge(
        self,
        piece: Interval,
        worst_g_per_kwh: float,
        watts_high: float,
        account: BudgetAccount = BudgetAccount.LOCATION,
    ) -> None:
        """Add a metered piece to its account; see `JobAccount.charge`."""
        timed = bool(self.process.devices) and piece.delta.device == self.process.devices[0]
        self.account.charge(piece, worst_g_per_kwh, watts_high, timed=timed, account=account)

    # ---- its orders

    def direct(self, directive: Directive) -> None:
        """It was told this."""
        self.directive, self.reason = directive, directive.reason

    def adopt(self, directive: Directive | None, now_s: float) -> None:
        """An earlier daemon told it this: no plan is known, but there is no need for another one either."""
        self.directive, self.plan = directive, PlanNote(made_s=now_s)

    def note_plan(self, plan: PlanNote, look_s: float = 60.0) -> None:
        self.plan, self.replan, self.look_s = plan, False, look_s

    def note_step_j(self, joules: float) -> None:
        """What a full step is reckoned to take by now."""
        if self.plan is not None:
            self.plan = replace(self.plan, step_j=joules)

    def note_easing(self, now_s: float, look_s: float = 60.0) -> None:
        self.eased_s, self.look_s = now_s, look_s

    # ---- its events

    def apply(self, event: Event, clock: Clock) -> Event:
        """Fold one event in. Energy of a segment runs from the end of the one before to its own `segment_done`.

        Returns it as it counts: a time that lies ahead of the clock, which was set back or is not the trainer's, is now.
        """
        event = _timed(event, clock)
        self._attribute(event)
        self.progress.fold(event, clock.monotonic(), self.process.alive_from)
        return event

    def _attribute(self, event: Event) -> None:
        """Which segment the energy belongs to from this event on."""
        match event:
            case Evaluated(when="before"):
                if self.process.segment is None:
                    self.process.enter(0, event.at)
            case SegmentReady():
                self.process.enter(event.k, event.at)
            case Step():
                self.process.enter(event.k, event.at, event.rho)
            case SegmentDone():
                following = None if self.progress.is_last(event) else event.k + 1
                self.process.enter(following, event.at)

    def hear(self, clock: Clock) -> None:
        """Read what its trainer has said since, and fold it in; where that cannot be read, `unheard` says why."""
        if len(self.unsaved) >= MOST_UNSAVED:
            self.note_trouble(f"{len(self.unsaved)} of its events wait for the ledger, the next are not read")
            return
        rows = 0
        try:
            for event in self.follower.events():
                taken = self.take(event, clock)
                if isinstance(taken, _KEPT):
                    self.unsaved.append(taken)
                    rows += not isinstance(taken, Started)
                if rows >= MOST_ROWS:
                    break
        except OSError as e:
            if not self.unheard:
                self.unheard_s = clock.monotonic()
            self.unheard = f"{self.follower.path.name} cannot be read: {e.strerror}"
            return
        self.unheard = ""

    def take(self, event: Event, clock: Clock) -> Event | None:
        """Fold in what the limit admits. Returns it as it counts; None: it was kept back."""
        event = _timed(event, clock)
        if not self.limit.admits(event, self.progress.segments):
            return None
        return self.apply(event, clock)

    def replay(self, until: int, clock: Clock) -> None:
        """Fold in again what is recorded, up to byte `until` of events.jsonl."""
        for event in self.follower.replay(min(until, self.recorded)):
            self.take(event, clock)

    def learn(self) -> Iterator[Event]:
        """Events that were not learnt from yet, each once."""
        new = self.unsaved[self.learnt :]
        yield from new
        self.learnt = len(self.unsaved)

    def mark_recorded(self) -> None:
        """The consequences of all events that were read are in the ledger."""
        self.discard()
        self.recorded = self.follower.offset

    def discard(self) -> None:
        """Forget the events whose consequences cannot be recorded."""
        self.unsaved.clear()
        self.learnt = 0

    def note_recorded(self, recorded: int) -> None:
        """An earlier daemon recorded the events up to this byte."""
        self.recorded = recorded


def _timed(event: Event, clock: Clock) -> Event:
    """A time that lies ahead of the clock, which was set back or is not the trainer's, is now."""
    return event.model_copy(update={"at": now}) if event.at > (now := clock.now()) else event

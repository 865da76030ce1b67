"""Holds what the daemon knows of one job that is not over: its account, its process, its progress and its directive.

Each of the three parts is changed only in its own file. Other packages call the methods here and assign to no field, which a test checks.
`carbonsched.supervisor.recovery` rebuilds all of it after a restart.
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
"""Allowed hours are searched this far ahead: some come within a week."""
_KEPT = (Started, SegmentDone, Evaluated, Warned)
"""Events that become rows, or that estimates learn from."""
MOST_ROWS = 200
"""Rows that one tick makes of a job's events; the others follow with the next tick."""
MOST_UNSAVED = 1000
"""Events that wait for a ledger which refuses writes; beyond that no more are read."""


@dataclass(frozen=True, slots=True)
class PlanNote:
    """What is kept of a job's last plan.

    Example:
        >>> PlanNote(made_s=5.0, price=0.02, end_s=3600.0).price
        0.02
    """

    made_s: float = 0.0
    """Monotonic time of the decision."""
    price: float | None = None
    """λ in gain per gram; the next search starts there."""
    end_s: float | None = None
    """Seconds from then to the end of the last segment; None if nothing was planned."""
    steps: int | None = None
    """Estimated total steps of a job of open end."""
    step_j: float | None = None
    """Joules per full step that the plan assumed."""


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
    """Grams the job may emit in all; every guard checks against it. None: there is no limit, or it is not resolved yet."""
    checked: CheckResult | None = None
    """What the trainer's check estimated, if the job came with a check."""
    account: JobAccount = field(default_factory=JobAccount)
    process: ProcessState = field(default_factory=ProcessState)
    progress: Progress = field(default_factory=Progress)
    limit: EventLimit = field(default_factory=EventLimit)

    failed: int = 0
    """Failed attempts, of the `queue.max_attempts` allowed."""
    needs_g: float = 0.0
    """Spend floor that the job's pool must be able to pay before the job starts."""
    directive: Directive | None = None
    plan: PlanNote | None = None
    """The last plan for the running process; None before its first decision."""
    clock: GraphicsClock = OWN
    """The board's graphics clock that estimates assume for the next segment."""
    replan: bool = False
    """The budget was changed: plan again, also in mid-segment."""
    eased_s: float = 0.0
    """Monotonic time at which ρ was last checked in mid-segment."""
    recheck_s: float = 60.0
    """Seconds between two such checks."""

    found: RunRecord | None = None
    """A process that runs though the journal does not know it yet."""
    warned: bool = False
    """Whether the warning that it nears its budget was given."""
    trouble: str = ""
    """What failed in the last tick and is retried; empty: nothing."""
    unresponsive: tuple[str, str] = ("", "")
    """How it disobeys its directive, or that it is silent: (which of the two, in words)."""
    aside: str = ""
    """Why the daemon cannot follow it for now: it is charged and shown, but neither started nor directed."""
    aside_s: float = 0.0
    """Monotonic time since when."""
    unheard: str = ""
    """Why its events cannot be read; empty: they can."""
    unheard_s: float = 0.0
    """Monotonic time since when."""

    unsaved: list[Event] = field(default_factory=list)
    """Events that are not in the ledger yet."""
    learnt: int = 0
    """How many of them the energy model has seen."""
    stepped: timedelta = timedelta()
    """Seconds by which the wall clock was set since this daemon knows the job."""
    recorded: int = 0
    """Bytes of events.jsonl whose events are in the ledger."""

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def spec(self) -> JobSpec:
        return self.job.spec

    @property
    def command(self) -> CommandPart | None:
        """The command given to `carbonsched run`; None for a training job."""
        return self.spec.command

    @property
    def steered(self) -> bool:
        """Whether it gets directives: every training job, and a command that has a budget and speaks the protocol."""
        return self.command is None or (self.budget_g is not None and self.progress.started is not None)

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def charged_g(self) -> float:
        """What guards check against the budget: the known grams and the worst case of the unknown."""
        return self.account.charged_g

    @property
    def part_g(self) -> float:
        """Grams it may still spend; 0 if its budget is unknown."""
        return (self.budget_g or self.charged_g) - self.charged_g

    @property
    def loading(self) -> bool:
        """Whether the process is alive and has not yet announced its work."""
        return self.alive and not self.progress.loaded

    @property
    def deadline(self) -> datetime | None:
        after = self.spec.carbon.deadline
        return None if after is None else self.job.submitted_at + self.stepped + timedelta(seconds=after)

    def step_elapsed_s(self, now: datetime) -> float:
        """Seconds that the current step has taken so far, by its events; 0 if no step is known to run."""
        began, progress = self.progress.pace.began, self.progress
        if began is None or progress.ready is None or progress.waiting is not None:
            return 0.0
        return max((now - began).total_seconds(), 0.0)

    def opens_at(self, now: datetime) -> datetime | None:
        """When the job may train next; None: it may train now."""
        if not self.spec.carbon.allowed_hours:
            return None
        start, _ = self.allowed_from(now)[0]
        return start if start > now else None

    def allowed_from(self, now: datetime, until_s: float = 0.0) -> list[tuple[datetime, datetime]]:
        """(start, end) of the hours in which the job may train, ascending, at least up to the next ones. Only for a job that has
        `allowed_hours`. until_s: how many seconds ahead they are wanted."""
        carbon = self.spec.carbon
        end = now + max(timedelta(seconds=until_s), _HOURS_AHEAD)
        return list(stretches(carbon.allowed_hours, carbon.timezone, now, end))

    def held_back(self, now: datetime) -> str:
        """Why a queued job may not start yet: it is outside its hours, or its pool cannot pay for its floor; empty: it may."""
        opens, pool = self.opens_at(now), self.spec.carbon.pool
        if opens is not None:
            return f"waits for its allowed hours, from {opens:%Y-%m-%d %H:%M} UTC"
        if pool is not None and (self.part_g <= 0 or self.part_g < self.needs_g * (1 - 1e-9)):
            return f"waits for pool {pool}: needs {show_grams(self.needs_g)}, {show_grams(self.part_g)} are its part"
        return ""

    def over_time(self, now: datetime) -> str:
        """Why its time limit ends the process; empty: it does not."""
        limit, began = self.spec.queue.time_limit, self.process.alive_from
        if limit is None or began is None or self.process.alive_to is not None:
            return ""
        ran_s = (now - began).total_seconds() - sum(self.process.asleep.values())
        return f"its time limit of {duration(limit)} is over" if ran_s >= limit else ""

    def resume_words(self, *, ending: bool = False) -> str:
        """What `carbonsched resume` would do. ending: its process is still to make a checkpoint, if it has trained a step."""
        saved, step = self.progress.checkpoint, self.progress.step
        if saved is not None:
            return f"carbonsched resume {self.id} goes on from the last checkpoint, of step {saved.step}"
        if ending and step:
            return f"carbonsched resume {self.id} goes on from the checkpoint that it makes as it ends"
        return f"carbonsched resume {self.id} starts it from the beginning: it has no checkpoint yet"

    # ---- its state and its budget

    def move(self, state: JobState, reason: str) -> None:
        self.state, self.reason = state, reason

    def note_failed(self, failed: int) -> None:
        """Set how many of its attempts have failed."""
        self.failed = failed

    def grant(self, budget_g: float) -> None:
        """Set its budget."""
        self.budget_g = budget_g

    def require(self, floor_g: float) -> None:
        """Set the grams that its pool must be able to pay before it may start."""
        self.needs_g = floor_g

    def run_at(self, clock: GraphicsClock) -> None:
        """Set the clock that estimates assume."""
        self.clock = clock

    def restate(self, now: JobAccount, told: Iterable[tuple[int | None, int]]) -> None:
        """Replace unknown energy that became known late: see `JobAccount.restate`."""
        self.account.restate(now, told)

    def note_warning(self) -> None:
        """Remember that the warning about its budget was given."""
        self.warned = True

    def request_plan(self) -> None:
        """Plan again at the next tick, also in mid-segment."""
        self.replan = True

    # ---- what is wrong with it

    def note_trouble(self, text: str) -> None:
        """Remember what failed in this tick."""
        self.trouble = text

    def note_unresponsive(self, kind: str, text: str) -> None:
        """Remember how it disobeys its directive, or that it is silent; empty: it does what it should."""
        self.unresponsive = (kind, text)

    def forget_trouble(self) -> None:
        """A new tick begins: forget the fault of the last one."""
        self.trouble = ""

    def set_aside(self, reason: str, now_s: float) -> None:
        """Set it aside: the daemon cannot follow it for now."""
        self.aside, self.aside_s = reason, now_s

    # ---- its process

    def place(self, devices: tuple[str, ...]) -> None:
        """Put a process that is about to start on these devices; what the last process was told no longer holds."""
        self.process.place(devices)
        self.directive, self.plan = None, None

    def begin(self, at: datetime, devices: tuple[str, ...], part: BoardPart = BoardPart()) -> None:
        """A process was started: forget what belonged to the last one."""
        self.process.begin(at, devices, part)
        self.progress.begin()
        self.limit = EventLimit.of_process(at)
        self.unresponsive = ("", "")
        self.account.begin()

    def adopt_process(self, found: RunRecord, now: datetime) -> None:
        """Take over a process that runs, or ran, though nobody journalled its start; its devices are set later (`begin`)."""
        self.begin(min(found.started_at, now), ())
        self.found = found

    def leave(self, wake_at: datetime | None = None) -> None:
        """The process is gone; `wake_at`: when to start the next one."""
        self.unresponsive = ("", "")
        self.process.leave(wake_at)

    def end(self, ending: Ending, kill_at: float | None = None) -> None:
        """Ask the process to end; the job then moves to the ending's target."""
        self.process.end(ending, kill_at)
        self.reason = ending.reason

    def shift(self, step: timedelta) -> None:
        """The wall clock was set: move recorded times to the new clock, and plan again."""
        self.process.shift(step)
        self.progress.shift(step)
        self.limit.shift(step)
        self.stepped += step
        self.request_plan()

    def sleep(self, seconds: float) -> None:
        """The box was suspended: extend the process's deadlines, and plan again."""
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
        """Record the directive that the job was sent."""
        self.directive, self.reason = directive, directive.reason

    def adopt(self, directive: Directive | None, now_s: float) -> None:
        """Record the directive that an earlier daemon sent: its plan is unknown, but no new one is needed."""
        self.directive, self.plan = directive, PlanNote(made_s=now_s)

    def note_plan(self, plan: PlanNote, recheck_s: float = 60.0) -> None:
        self.plan, self.replan, self.recheck_s = plan, False, recheck_s

    def note_step_j(self, joules: float) -> None:
        """Record the current estimate of a full step's joules."""
        if self.plan is not None:
            self.plan = replace(self.plan, step_j=joules)

    def note_easing(self, now_s: float, recheck_s: float = 60.0) -> None:
        self.eased_s, self.recheck_s = now_s, recheck_s

    # ---- its events

    def apply(self, event: Event, clock: Clock) -> Event:
        """Fold one event in, and return it as it counts. A segment's energy runs from the previous segment's end to its own `segment_done`.
        A time ahead of the clock (which was set back, or is not the trainer's) counts as now."""
        event = _timed(event, clock)
        self._attribute(event)
        self.progress.fold(event, clock.monotonic(), self.process.alive_from)
        return event

    def _attribute(self, event: Event) -> None:
        """The segment that energy belongs to from this event on."""
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

    def read_events(self, clock: Clock) -> None:
        """Read the trainer's new events and fold them in; if they cannot be read, `unheard` says why."""
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
        """Fold in an event if the limit admits it, and return it as it counts; None: it was not admitted."""
        event = _timed(event, clock)
        if not self.limit.admits(event, self.progress.segments):
            return None
        return self.apply(event, clock)

    def replay(self, until: int, clock: Clock) -> None:
        """Fold in again what is recorded, up to byte `until` of events.jsonl."""
        for event in self.follower.replay(min(until, self.recorded)):
            self.take(event, clock)

    def learn(self) -> Iterator[Event]:
        """Events that the energy model has not seen, each once."""
        new = self.unsaved[self.learnt :]
        yield from new
        self.learnt = len(self.unsaved)

    def mark_recorded(self) -> None:
        """All events that were read are now in the ledger."""
        self.discard()
        self.recorded = self.follower.offset

    def discard(self) -> None:
        """Forget events that cannot be recorded."""
        self.unsaved.clear()
        self.learnt = 0

    def note_recorded(self, recorded: int) -> None:
        """An earlier daemon recorded the events up to this byte."""
        self.recorded = recorded


def _timed(event: Event, clock: Clock) -> Event:
    """Times ahead of the clock (which was set back, or is not the trainer's) count as now."""
    return event.model_copy(update={"at": now}) if event.at > (now := clock.now()) else event

"""Starts queued jobs: decides which one, on which devices, and handles starts that are under way."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.errors import LaunchError
from carbonsched.launch.base import Launcher
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.budgets.pools import Pools
from carbonsched.supervisor.drain import DRAINED, Drain
from carbonsched.supervisor.fault_isolation import FaultIsolation
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Seat
from carbonsched.supervisor.outcome import again
from carbonsched.supervisor.pending_starts import PendingStarts, Start
from carbonsched.supervisor.placement import Placement, boards_of
from carbonsched.supervisor.recovery import ProcessJournal

if TYPE_CHECKING:  # NumPy stays out of a daemon at rest
    from carbonsched.supervisor.control.loop import ControlLoop


class Jobs(Protocol):
    """The part of the supervisor that starting jobs uses.

    Example::

        Starter(supervisor).start_queued()
    """

    config: Config
    ledger: Ledger
    launcher: Launcher
    clock: Clock
    runs: dict[str, JobRun]
    placement: Placement
    journal: ProcessJournal
    pools: Pools
    isolation: FaultIsolation

    @property
    def control(self) -> "ControlLoop": ...
    def live(self) -> list[JobRun]: ...
    def move(self, run: JobRun, new: JobState, reason: str) -> None: ...
    def drop(self, run: JobRun) -> None: ...
    def end_again(self, run: JobRun) -> None: ...


@dataclass(slots=True)
class Starter:
    """The part of a tick that starts jobs. The supervisor's lock is held throughout.

    Example::

        starter.finish_starts()  # what the last ticks began
        starter.start_queued()
    """

    supervisor: Jobs
    starts: PendingStarts = field(default_factory=PendingStarts)
    drain: Drain = field(init=False)
    _over: dict[str, tuple[JobState, bool]] = field(default_factory=dict)
    """How the jobs ended that others come after, and whether they were removed."""

    def __post_init__(self) -> None:
        self.drain = Drain(self.supervisor.ledger, self.supervisor.clock)

    def start_queued(self) -> None:
        # cached by number of boards: a seat is for the first job that may start, a reason for all of them
        self.starts.begin_tick()
        supervisor, found, kept = self.supervisor, dict[int, tuple[Seat | None, str]](), False
        for run in queue(supervisor.runs.values()):
            with supervisor.isolation.alone(run):
                if reason := self.drain.why or self.waits_for(run) or run.held_back(supervisor.clock.now()):
                    self._note_wait(run, reason)
                    continue
                boards = boards_of(run.spec)
                if kept and boards:
                    continue
                if boards not in found:
                    found[boards] = supervisor.placement.find_seat(supervisor.live(), boards)
                seat, full = found[boards]
                if seat is not None:
                    found.clear()
                    self._start(run, seat)
                    continue
                if full:
                    self._note_wait(run, full)
                # smaller jobs would otherwise take each board that becomes free, and this one would wait for ever
                kept |= boards > 1 and supervisor.placement.has_room(boards)

    def end_drain(self, actor: str) -> None:
        """Let jobs start again. Raises LedgerError."""
        self.drain.end(actor)
        for run in queue(self.supervisor.runs.values()):
            if run.reason.startswith(DRAINED):
                with self.supervisor.isolation.alone(run):
                    self.supervisor.move(run, run.state, f"undrained by {actor}")

    def finish_starts(self) -> None:
        """Handle the starts that have ended: the job runs, or its start has failed."""
        supervisor = self.supervisor
        for start in self.starts.ended():
            run = supervisor.runs.get(start.job_id)
            if run is None or not run.process.starting:
                self.starts.forget(start.job_id)
                continue
            with supervisor.isolation.alone(run):
                self._finish_start(run, start)

    def waits_for(self, run: JobRun) -> str:
        """The unfinished job that it comes after; empty: none."""
        for job_id in run.spec.queue.after:
            before = self.supervisor.runs.get(job_id)
            if before is not None:  # resuming it makes it unfinished again
                self._over.pop(job_id, None)
            state, removed = (before.state, False) if before is not None else self._ended(job_id)
            if state is JobState.FINISHED:
                continue
            if removed or state is JobState.CANCELLED:
                how = f"{state} and removed" if removed else str(state)
                return f"waits for {job_id}, which is {how} and will never finish; cancel {run.id}"
            way_out = f"; resume that one, or cancel {run.id}" if state.ended else ""
            return f"waits for {job_id}, which is {state}{way_out}"
        return ""

    def forget(self, job_id: str) -> None:
        """The job was removed: what is known of its end is read again."""
        self._over.pop(job_id, None)

    def _ended(self, job_id: str) -> tuple[JobState, bool]:
        if job_id not in self._over:
            ledger = self.supervisor.ledger
            self._over[job_id] = ledger.job(job_id).state, job_id in ledger.removed_ids()
        return self._over[job_id]

    def _note_wait(self, run: JobRun, reason: str) -> None:
        """Journal the reason once: figures after the colon may change at every tick."""
        if run.reason.split(":")[0] != reason.split(":")[0]:
            self.supervisor.move(run, run.state, reason)

    def _start(self, run: JobRun, seat: Seat) -> None:
        supervisor = self.supervisor
        argv = [supervisor.config.launch.python, "-m", "trainer", "run", str(run.dir)]
        # with a ledger restored from a backup, an unrecorded process is the job's all the same
        polled = supervisor.launcher.poll(run.dir)
        if polled.state == "unknown":
            raise LaunchError(f"whether it runs already cannot be told: {polled.problem}")
        found = polled.state == "running"
        if not found:
            run.place(seat.devices)
            supervisor.control.open(run)
        supervisor.journal.note_start(run, seat, polled.run if found else None)
        run.begin(supervisor.clock.now(), seat.devices, seat.part)
        supervisor.control.allocator.begin(run)
        supervisor.pools.mark_stale(run)
        if found:
            supervisor.move(run, JobState.RUNNING, "started, loading the model")
            return
        run.process.launch()
        env, most = supervisor.placement.env(seat), supervisor.config.launch.log_bytes
        launch = supervisor.launcher.start
        self.starts.begin(run.id, partial(launch, run.dir, argv, env, run.job.owner, run.spec, most))
        ended = [start for start in self.starts.ended() if start.job_id == run.id]
        if ended:
            self._finish_start(run, ended[0])
        else:
            supervisor.move(run, run.state, "is being started")

    def _finish_start(self, run: JobRun, start: Start) -> None:
        supervisor, error = self.supervisor, start.error
        if error is None:
            run.process.launched()
            self.starts.forget(run.id)
            supervisor.move(run, JobState.RUNNING, "started, loading the model")
            supervisor.end_again(run)
            return
        new, reason = run.process.target, run.process.target_reason
        ending = None
        if new is None and isinstance(error, LaunchError):
            new, reason = JobState.FAILED, str(error)
            if ending := again(run, reason, supervisor.clock.now()):
                run.end(ending)
                new, reason = ending.target, ending.reason
        with supervisor.ledger.transaction():
            if ending is not None:
                supervisor.journal.note_ending(run)
            supervisor.journal.note_end(run)
            if new is not None:
                supervisor.move(run, new, reason)
        self.starts.forget(run.id)
        run.leave(run.process.wake_at if new is JobState.WAITING else None)
        if new is None:
            raise error  # retried at the next tick, or the job fails
        if new.ended:
            supervisor.drop(run)


def queue(runs: Iterable[JobRun]) -> list[JobRun]:
    """The queued jobs in starting order."""
    queued = [run for run in runs if run.state is JobState.QUEUED and not run.alive and not run.aside]
    return sorted(queued, key=lambda run: (-run.spec.queue.priority, run.job.submitted_at))

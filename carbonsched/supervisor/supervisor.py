"""The tick: look at the jobs, meter, charge, direct, record; and the requests of the API between two ticks.

One lock guards all of it. A tick never waits for the network (feeds are polled on their own schedule) nor for a job;
everything it learns goes to the ledger in one transaction, together with how far each job's events were read, so that a
daemon killed at any instant goes on without losing or repeating anything.
"""

import json
import logging
import threading
from datetime import timedelta
from pathlib import Path

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.errors import LaunchError
from carbonsched.feeds.chain import Chain
from carbonsched.launch.base import Launcher
from carbonsched.ledger.ledger import JobRecord, Ledger
from carbonsched.model.energy import Interval
from carbonsched.model.job import JobState, move
from carbonsched.model.profile import CheckResult
from carbonsched.model.protocol import Directive, Evaluated, SegmentDone, SegmentReady, Warned
from carbonsched.power.base import Meter
from carbonsched.supervisor.allowance import Allowances
from carbonsched.supervisor.events import EventFollower
from carbonsched.supervisor.metering import Metering, spend
from carbonsched.supervisor.outlook import Outlook
from carbonsched.supervisor.pools import DAEMON, Pools
from carbonsched.supervisor.run import JobRun
from carbonsched.supervisor.steering import RESIDENT_WAIT_S, Steering, observe, write_control
from carbonsched.units import grams

log = logging.getLogger(__name__)

TRAINER = "trainer"
"""Actor in the journal beside the daemon and people."""
CHECKED = "check.json"
"""In the job's directory: what the trainer's check foresaw."""
_EASE_S = 60.0
"""Between two looks at whether ρ must fall in mid-segment."""


def _death(run: JobRun, signal: int | None, code: int | None) -> str:
    again = f"carbonsched resume {run.id} goes on from the last checkpoint"
    if run.failed is not None:
        return f"{run.failed.error}; see carbonsched logs {run.id}"
    if signal is not None:
        return f"killed by signal {signal}; {again}"
    if code is not None:
        return f"ended with exit code {code}; see carbonsched logs {run.id}"
    return f"its process vanished without a word (power cut?); {again}"


class Supervisor:
    def __init__(
        self, config: Config, ledger: Ledger, chain: Chain, meter: Meter, launcher: Launcher, clock: Clock
    ) -> None:
        self.config, self.ledger, self.chain, self.meter = config, ledger, chain, meter
        self.launcher, self.clock = launcher, clock
        self.metering = Metering(config, chain)
        self.steering = Steering(config, chain, clock)
        self.outlook = Outlook(config, ledger, meter, self.steering)
        self.runs: dict[str, JobRun] = {}
        """Jobs that are not over, by id."""
        pools = Pools(config.pools, ledger, clock, self.outlook.charged_g)
        self.allowances = Allowances(ledger, clock, self.steering, pools)
        self.ticks = 0
        self.draining = False
        self._unsaved: list[Interval] = []
        self.lock = threading.RLock()

    # ---- beginning and end

    def start(self) -> None:
        """Adopt what an earlier daemon left, and go on metering from the ledger's last rows."""
        with self.lock:
            self.meter.resume(self.ledger.marks())
            for row in self.ledger.jobs():
                if not row.state.ended:
                    self.runs[row.id] = self._adopt(row)
            self.allowances.pools.hold(list(self.runs.values()))

    def stop(self) -> None:
        """Meter once more and write every open row; jobs go on without us."""
        with self.lock:
            self.tick()
            self.flush()
            self.meter.close()

    def reconfigure(self, config: Config) -> None:
        """Take over what may change while jobs run: PUE, the stated worst case, and the plan and launch settings."""
        with self.lock:
            self.flush()
            worst = {"worst_g_per_kwh": config.zone.worst_g_per_kwh}
            changes = {
                "pue": config.pue,
                "pue_source": config.pue_source,
                "zone": self.config.zone.model_copy(update=worst),
                "plan": config.plan,
                "pools": config.pools,
                "launch": config.launch,
            }
            self.config = self.config.model_copy(update=changes)
            self.metering.config = self.steering.config = self.outlook.config = self.config
            self.allowances.pools.configure(config.pools)

    # ---- the tick

    def tick(self) -> None:
        with self.lock:
            live = [run for run in self.runs.values() if run.alive_from is not None]
            ended = [run for run in live if self._look(run)]
            for run in live:
                self._read_events(run)
            pieces, rows = self.metering.charge(self.meter.read(), live)
            self._account(pieces)
            self.allowances.grow(list(self.runs.values()))
            self.outlook.note_power(live, self.metering.watts)
            self._save(live, rows)
            for run in live:
                if run in ended:
                    self._ended(run)
                else:
                    self._follow_waiting(run)
            self.allowances.share(list(self.runs.values()), self.outlook.question)
            self.steering.heed()
            for run in [r for r in self.runs.values() if r.alive_from is not None]:
                self._steer(run)
            self._start_queued()
            self.ticks += 1

    def job_dir(self, job_id: str) -> Path:
        return self.config.state / "jobs" / job_id

    def enlist(self, job_id: str) -> None:
        """Take a newly submitted job into the queue."""
        with self.lock:
            run = self.runs[job_id] = self._run(self.ledger.job(job_id))
            self.allowances.pools.changed(run)

    def requeue(self, run: JobRun, reason: str, actor: str) -> None:
        """A job that is not running goes on from its last checkpoint."""
        self.runs[run.id] = run
        self.move(run, JobState.QUEUED, reason, actor)
        self.allowances.pools.changed(run)

    def drop(self, run: JobRun) -> None:
        """The job is over."""
        self.allowances.pools.over(run)
        self.runs.pop(run.id, None)

    def flush(self) -> None:
        """Write the open rows now."""
        with self.lock:
            self._save([], self.metering.flush())

    def _save(self, live: list[JobRun], rows: list[Interval]) -> None:
        """Rows and events in one transaction. Where the ledger refuses (disk full), they are kept for the next tick."""
        self._unsaved += rows
        for run in live:
            self._learn(run)
        with self.ledger.transaction():
            self.ledger.append(self._unsaved)
            for run in live:
                self._record(run)
        self._unsaved.clear()
        for run in live:
            run.unsaved.clear()
            run.learnt, run.recorded = 0, run.follower.offset

    def _look(self, run: JobRun) -> bool:
        """Whether the job's process has ended; then its energy ends with it."""
        look = self.launcher.look(run.dir)
        if look.status == "running":
            if run.kill_at is not None and self.clock.monotonic() >= run.kill_at:
                log.warning("job %s did not end in %g s, killing it", run.id, self.config.launch.stop_s)
                self.launcher.kill(run.dir)
                run.kill_at = None
            return False
        # without an exit record the last word of the job is the latest time it is known to have lived
        run.alive_to = look.exit.at if look.exit else run.last_word or self.clock.now()
        return True

    def _read_events(self, run: JobRun) -> None:
        for event in run.follower.read():
            run.apply(event, self.clock)
            run.unsaved.append(event)

    def _learn(self, run: JobRun) -> None:
        """Teach the energy model, once the energy of the segments that ended is charged."""
        for event in run.unsaved[run.learnt :]:
            if isinstance(event, SegmentDone):
                observe(run, event)
        run.learnt = len(run.unsaved)

    def _record(self, run: JobRun) -> None:
        """What the events say, for good, and how far they were read."""
        for event in run.unsaved:
            match event:
                case SegmentDone():
                    self.ledger.save_segment(run.id, event, run.since(event), event.at, run.directive)
                case Evaluated():
                    self.ledger.note(run.id, "evaluated", event.dump(), TRAINER, event.at)
                case Warned():
                    log.warning("job %s: %s", run.id, event.message)
                    self.ledger.note(run.id, "note", {"text": event.message}, TRAINER, event.at)
        if run.follower.offset != run.recorded:
            self.ledger.set_offset(run.id, run.follower.offset)

    def _follow_waiting(self, run: JobRun) -> None:
        if run.state is JobState.RUNNING and run.waiting is not None:
            self.move(run, JobState.WAITING, run.waiting.reason)
        elif run.state is JobState.WAITING and run.waiting is None:
            self.move(run, JobState.RUNNING, run.directive.reason if run.directive else "goes on")

    def _ended(self, run: JobRun) -> None:
        """The process is gone: where does the job go from here?"""
        look = self.launcher.look(run.dir)
        code = look.exit.code if look.exit else None
        if run.finished is not None and run.finished.reason == "done" and code == 0:
            new, reason = JobState.FINISHED, run.finished.early or "done"
        elif run.target is not None:
            new, reason = run.target, run.target_reason
        elif run.directive is not None and run.directive.action == "stop" and code == 0:
            new, reason = JobState.STOPPED, run.directive.reason
        elif run.finished is not None and code == 0:
            new = JobState.PAUSED
            reason = f"stopped by a signal from outside; carbonsched resume {run.id} goes on"
        else:
            new, reason = JobState.FAILED, _death(run, look.exit.signal if look.exit else None, code)
        wake = run.wake_at
        self.move(run, new, reason)
        run.alive_from = None
        run.power_w = None
        run.boards = ()
        run.wake_at = wake if new is JobState.WAITING else None
        if new.ended:
            self.drop(run)

    # ---- energy

    def _account(self, pieces: list[Interval]) -> None:
        worst = self.config.zone.worst_g_per_kwh
        for piece in pieces:
            run = self.runs.get(piece.job_id or "")
            if run is not None:
                spend(run, piece, worst, self.outlook.watts_high(run))

    # ---- steering

    def _steer(self, run: JobRun) -> None:
        if self._spent(run) or run.target is not None:
            return
        ready, directive = run.ready, run.directive
        if ready is None:
            return
        opens = self.steering.opens(run)
        answered = directive is not None and directive.k == ready.k and run.planned_at >= run.ready_seen_s
        waited = (
            directive is not None
            and directive.action == "wait"
            and (directive.until is None or self.clock.now() >= directive.until)
        )
        closed = opens is not None and directive is not None and directive.action == "train"
        if not answered or waited or run.replan or closed:
            self._plan(run, ready)
        else:
            energy = self.steering.energy(run, self.outlook.fit(run, ready))
            fresh = self.steering.renew(run, energy, self.allowances.left_g(run))
            if fresh is not None and fresh.action == "stop":
                self._dry(run, fresh)
            elif fresh is not None:
                self._direct(run, fresh, journal=False)
            elif self.clock.monotonic() - max(run.eased_at, run.planned_at) >= _EASE_S:
                self._ease(run)

    def _ease(self, run: JobRun) -> None:
        """Lower ρ for the rest of the segment rather than stop when the grams are gone."""
        run.eased_at = self.clock.monotonic()
        rest, energy = self.outlook.of(run)
        if rest is None:
            return
        left_g = self.allowances.left_g(run)
        lower = self.steering.ease(
            run, self.steering.problem(run, rest, energy, left_g, self.outlook.idle(run))
        )
        if lower is not None:
            self._direct(run, lower, journal=True)

    def _spent(self, run: JobRun) -> bool:
        """The last net, also for loading and saving, which no lease covers: one more tick could pass the budget.

        Killed, not asked: what a checkpoint takes is not there any more; the next start goes on from the one before.
        """
        if run.budget_g is None:
            return False
        tick_j = self.outlook.watts_high(run) * self.config.power.tick_s
        tick_g = grams(tick_j, self.config.zone.worst_g_per_kwh, self.config.pue)
        if run.charged_g + tick_g <= run.budget_g:
            return False
        if run.target is None:
            reason = f"stop: the budget is spent, {run.charged_g:.4g} g of {run.budget_g:.4g} g"
            run.target, run.target_reason = self.allowances.dry(run, list(self.runs.values()), reason)
            log.warning("job %s: %s", run.id, run.target_reason)
        self.launcher.kill(run.dir)
        return True

    def _plan(self, run: JobRun, ready: SegmentReady) -> None:
        run.replan = False
        pool = self.allowances.pools.of(run.spec)
        runs = list(self.runs.values())
        if pool is not None:
            self.allowances.pools.divide(pool, runs, self.outlook.question)
            run.replan = False
        rest, energy = self.outlook.of(run)
        if rest is None:
            return
        self.allowances.resolve(run, rest, energy)
        left_g = self.allowances.left_g(run)
        idle_w = self.outlook.idle(run)
        problem = self.steering.problem(run, rest, energy, left_g, idle_w)
        aim = self.allowances.aim(run, rest, energy, idle_w, runs)
        run.plan, directive = self.steering.decide(run, ready, problem, aim, left_g)
        run.planned_at = self.clock.monotonic()
        if directive.action == "stop":
            self._dry(run, directive)
            return
        self._direct(run, directive, journal=True)
        wait_s = run.plan.wait_s or 0.0
        if directive.action == "wait" and wait_s > (aim.growth.resident_s if aim.growth else RESIDENT_WAIT_S):
            run.wake_at = self.clock.now() + timedelta(seconds=wait_s)
            self.end(run, JobState.WAITING, directive.reason)

    def _dry(self, run: JobRun, stop: Directive) -> None:
        """A stop on budget; where the budget grows the job ends its process and waits instead."""
        new, reason = self.allowances.dry(run, list(self.runs.values()), stop.reason)
        self._direct(run, stop.model_copy(update={"reason": reason}), journal=True)
        if new is not JobState.STOPPED:
            run.target, run.target_reason = new, reason

    def _direct(self, run: JobRun, directive: Directive, *, journal: bool) -> None:
        run.directive = directive
        write_control(run.dir, directive)
        if directive.action == "stop":
            run.kill_at = self.clock.monotonic() + self.config.launch.stop_s
        if journal:
            detail = directive.dump() | {"spent_g": run.spent_g, "budget_g": run.budget_g}
            self.ledger.note(run.id, "directive", detail, DAEMON, self.clock.now())
            log.info("job %s segment %d: %s", run.id, directive.k, directive.reason)
        run.reason = directive.reason

    def end(self, run: JobRun, target: JobState, reason: str) -> None:
        """Ask the process to checkpoint and end; `_ended` moves the job when it has."""
        run.target, run.target_reason, run.reason = target, reason, reason
        run.kill_at = self.clock.monotonic() + self.config.launch.stop_s
        self.launcher.terminate(run.dir)

    # ---- starting

    def _start_queued(self) -> None:
        now = self.clock.now()
        for run in self.runs.values():
            if (
                run.state is JobState.WAITING
                and run.alive_from is None
                and (run.wake_at is None or now >= run.wake_at)
            ):
                self.move(run, JobState.QUEUED, "the wait is over")
        queued = [run for run in self.runs.values() if run.state is JobState.QUEUED]
        for run in sorted(queued, key=lambda r: r.job.submitted_at):
            if self._held_back(run):
                continue
            boards = self.free_boards()
            if boards is None or self.draining:
                return
            self._start(run, boards)

    def _held_back(self, run: JobRun) -> bool:
        """Whether a queued job may not start yet: outside its hours, or its pool cannot pay for its floor."""
        opens = self.steering.opens(run)
        reason = ""
        if opens is not None:
            reason = f"waits for its allowed hours, from {opens:%Y-%m-%d %H:%M} UTC"
        elif run.spec.carbon.pool is not None:
            part = (run.budget_g or run.charged_g) - run.charged_g
            if part <= 0 or part < run.needs_g * (1 - 1e-9):
                reason = f"waits for pool {run.spec.carbon.pool}: needs {run.needs_g:.3g} g, {part:.3g} g are its part"
        if reason and run.reason.split(":")[0] != reason.split(":")[0]:
            self.move(run, run.state, reason)
        return bool(reason)

    def free_boards(self) -> tuple[str, ...] | None:
        """The boards of one free slot: a GPU of its own, and the host's share; None where all slots are taken."""
        live = [run for run in self.runs.values() if run.alive_from is not None]
        gpus = [board for board in self.meter.boards if board.kind == "gpu"]
        hosts = tuple(board.id for board in self.meter.boards if board.kind == "host")
        slots = self.config.launch.slots or max(len(gpus), 1)
        if len(live) >= slots:
            return None
        taken = {board for run in live for board in run.boards}
        free = [board.id for board in gpus if board.id not in taken]
        if gpus and not free:
            return None
        return (*free[:1], *hosts)

    def _start(self, run: JobRun, boards: tuple[str, ...]) -> None:
        argv = [self.config.launch.python, "-m", "trainer", "run", str(run.dir)]
        gpu = next((b for b in self.meter.boards if b.id in boards and b.kind == "gpu"), None)
        env = {"CUDA_VISIBLE_DEVICES": gpu.id} if gpu is not None and gpu.id.startswith("GPU-") else {}
        (run.dir / "control.json").unlink(missing_ok=True)
        run.directive, run.plan = None, None
        # before the start: whatever happens next, a successor knows which boards the process may be on
        self.ledger.note(run.id, "started", {"boards": list(boards)}, DAEMON, self.clock.now())
        try:
            record = self.launcher.start(run.dir, argv, env, run.job.owner)
        except LaunchError as e:
            self.move(run, JobState.FAILED, str(e))
            self.drop(run)
            return
        run.boards = boards
        run.begin(record.started_at)
        self.allowances.begin(run)
        self.allowances.pools.changed(run)
        self.move(run, JobState.RUNNING, "started, loading the model")

    def _adopt(self, row: JobRecord) -> JobRun:
        """Rebuild a job's run from its events; recorded ones are folded in again, not recorded twice."""
        run = self._run(row)
        look = self.launcher.look(run.dir)
        # a process may run whose start was not recorded any more: it is ours all the same
        if look.run is None or (not row.state.live and look.status != "running"):
            self._replay(run)
            return run
        started = self.ledger.history(run.id, kinds=("started",))
        run.boards = tuple(started[-1]["boards"]) if started else ()
        run.begin(look.run.started_at)
        self._replay(run)
        control = run.dir / "control.json"
        if control.exists():
            run.directive = Directive.parse(json.loads(control.read_text(encoding="utf-8")), "control.json")
            run.planned_at = self.clock.monotonic()
        self.ledger.note(
            run.id, "note", {"text": "adopted after a restart of the daemon"}, DAEMON, self.clock.now()
        )
        log.info("job %s: adopted, process %d", run.id, look.run.pid)
        if not run.state.live:
            self.move(run, JobState.RUNNING, "adopted, running")
        return run

    def _run(self, row: JobRecord) -> JobRun:
        totals = self.ledger.totals(row.id)
        path = self.job_dir(row.id)
        run = JobRun(
            job=row.submitted,
            dir=path,
            follower=EventFollower(path / "events.jsonl"),
            state=row.state,
            reason=row.reason,
            budget_g=row.budget_g,
        )
        run.spent_mj, run.spent_g, run.unknown_s = totals.energy_mj, totals.grams, totals.unknown_s
        run.estimated = totals.estimated
        run.segment_mj = {k: sums.energy_mj for k, sums in self.ledger.segment_totals(row.id).items()}
        run.reserved_g = self.outlook.charged_g(row.id) - totals.grams
        checked = path / CHECKED
        if checked.exists():
            run.checked = CheckResult.parse(json.loads(checked.read_text(encoding="utf-8")), CHECKED)
        self.allowances.restore(run)
        return run

    def _replay(self, run: JobRun) -> None:
        """Fold in the events that are already recorded, without recording them again."""
        run.recorded = self.ledger.offset(run.id)
        for event in run.follower.read(until=run.recorded):
            run.apply(event, self.clock)

    # ---- moving jobs, also on request of the API (with the lock held)

    def move(self, run: JobRun, new: JobState, reason: str, actor: str = DAEMON) -> None:
        if new is not run.state:
            move(run.id, run.state, new)
            log.info("job %s: %s -> %s: %s", run.id, run.state, new, reason)
        self.ledger.set_state(run.id, new, reason, actor, self.clock.now())
        run.state, run.reason = new, reason

    def find(self, job_id: str) -> tuple[JobRecord, JobRun]:
        """The job's row and run; a run is rebuilt for jobs that are over. Raises NotFoundError."""
        with self.lock:
            row = self.ledger.job(job_id)
            run = self.runs.get(job_id)
            if run is None:
                run = self._run(row)
                self._replay(run)
            return row, run

"""Runs the tick: checks the jobs' processes, meters, charges, directs and records, and moves jobs between states.

What the API asks between two ticks is in `carbonsched.supervisor.service`.

One lock guards all of it. A tick never waits for the network (feeds are polled on their own schedule) nor for a job, and whatever may
take long (a meter's driver, a start, the disk under the ledger) is not waited for under the lock.

The first half of a tick meters every device and writes the rows. The second half handles one job at a time: its events go to the ledger
in one transaction with the offset up to which they were read, so a daemon killed at any instant neither loses nor repeats anything, and a
fault of one job fails that job alone.
"""

import logging
import threading
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from carbonsched.clock import Clock, SleepWatch, StepWatch
from carbonsched.clocks.client import ClockClient
from carbonsched.config import Config
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.supply.chain import SupplyChain
from carbonsched.feeds.value_chain import ValueChain
from carbonsched.launch.base import Launcher
from carbonsched.ledger.ledger import Ledger
from carbonsched.ledger.records import JobRecord
from carbonsched.model.energy import BudgetAccount, EnergyDelta
from carbonsched.model.grid import Price, PueReading
from carbonsched.model.job_state import JobState, move
from carbonsched.power.base import Meter
from carbonsched.power.sample import STEP_S
from carbonsched.supervisor import access
from carbonsched.supervisor.adoption import Adoption
from carbonsched.supervisor.budgets import command_budget
from carbonsched.supervisor.budgets.pools import Pools
from carbonsched.supervisor.cpu_watch import CpuWatch
from carbonsched.supervisor.effects_cache import NAME as EFFECTS_FILE
from carbonsched.supervisor.effects_cache import EffectsCache
from carbonsched.supervisor.fault_isolation import FaultIsolation
from carbonsched.supervisor.forecast_file import ForecastFile
from carbonsched.supervisor.grid_watch import GridWatch
from carbonsched.supervisor.host_shares import HostTick
from carbonsched.supervisor.job_notifier import JobNotifier
from carbonsched.supervisor.jobs.actors import DAEMON
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.jobs.process_state import Ending
from carbonsched.supervisor.late_energy import LateEnergy
from carbonsched.supervisor.lifecycle import Lifecycle
from carbonsched.supervisor.measured_lock import MeasuredLock
from carbonsched.supervisor.metering import Metering
from carbonsched.supervisor.metric_counters import MetricCounters
from carbonsched.supervisor.pending_rows import PendingRows
from carbonsched.supervisor.placement import Placement
from carbonsched.supervisor.price_watch import PriceWatch
from carbonsched.supervisor.pue_watch import PueWatch
from carbonsched.supervisor.quotas import Quotas
from carbonsched.supervisor.recovery import ProcessJournal
from carbonsched.supervisor.responsiveness import Responsiveness
from carbonsched.supervisor.settling import Settling
from carbonsched.supervisor.starter import Starter
from carbonsched.supervisor.supply_shares import SupplyShares
from carbonsched.supervisor.supply_watch import SupplyWatch
from carbonsched.supervisor.tick_interval import TickInterval

if TYPE_CHECKING:  # NumPy stays out of a daemon at rest: Supervisor.control is the one door
    from carbonsched.plan.problem import Problem
    from carbonsched.supervisor.control.loop import ControlLoop

log = logging.getLogger(__name__)

HUNG_S = 5.0
"""A tick that lasts longer has met a driver that hangs; nobody waits for it."""


class Supervisor:
    """The jobs of a box, and everything that is done with them.

    Example::

        supervisor = Supervisor(config, ledger, chain, meter, LocalLauncher(), SystemClock())
        supervisor.start()
        supervisor.tick()  # every second
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        chain: Chain,
        meter: Meter,
        launcher: Launcher,
        clock: Clock,
        prices: ValueChain[Price] | None = None,
        supply: SupplyChain | None = None,
        pue: ValueChain[PueReading] | None = None,
    ) -> None:
        """prices, supply, pue: None if the config has none."""
        self.config = config
        self.ledger, self.meter, self.launcher, self.clock = ledger, meter, launcher, clock
        self.runs: dict[str, JobRun] = {}
        """Unfinished jobs, by id."""
        self.watch = GridWatch(chain, clock, ForecastFile(config.state / "forecasts.jsonl"))
        chain.forecasts_wanted = config.plan.forecasts_wanted
        self.prices, self.pue = PriceWatch(prices, clock), PueWatch(pue, lambda: self.config, clock)
        self.metering = Metering(self._config, chain, self.pue, SupplyShares(supply), prices=prices)
        self.cpu = CpuWatch(launcher, clock)
        self.supply = SupplyWatch(supply, self.metering, clock, meter.devices)
        self.placement = Placement(meter, launcher, self._config)
        self.journal = ProcessJournal(ledger, clock, launcher, meter, self._config, config.state / "jobs")
        self.pools = Pools(config.pools, ledger, clock, lambda job_id: self.journal.account(job_id).charged_g)
        self.quotas = Quotas(ledger, clock, lambda: self.config.quotas, self.runs)
        self._control: ControlLoop | None = None
        self.began = clock.now()
        """When this daemon took over."""
        self.ticks = self.samples = 0
        """Complete ticks, and reads of the meters that returned."""
        self.counters, self.notifier = MetricCounters(), JobNotifier(clock)
        self.tick_interval = TickInterval(clock, lambda: self.config.power.tick_s)
        self.starter, self.lifecycle = Starter(self), Lifecycle(self)
        self._wall, self._sleep = StepWatch(clock, STEP_S), SleepWatch(clock)
        self.pending = PendingRows(ledger, clock)
        self.responsiveness = Responsiveness(
            clock, self._config, self.pending.note, self.notifier.unresponsive, self.lifecycle.end_and_retry
        )
        self.late = LateEnergy(ledger, self.pending, self.journal)
        self.isolation = FaultIsolation(clock, self.lifecycle.fail)
        self.lock = MeasuredLock(self.pending.sync)
        self._ticking = threading.RLock()
        """Held during a tick: two that read at once would charge energy twice, or after its job is over."""
        self.settling = Settling(ledger, self.watch, self.pending, self.lock, clock)
        self.effects = EffectsCache(config.state / EFFECTS_FILE)

    def live(self) -> list[JobRun]:
        return [run for run in self.runs.values() if run.alive]

    def _config(self) -> Config:
        """The current config: SIGHUP may change it, and the hour or a feed its PUE."""
        return self.pue.applied()

    @property
    def control(self) -> "ControlLoop":
        """Plans and directs jobs. It is loaded with the first job, because NumPy takes 13 MB that a daemon without jobs saves."""
        if self._control is None:
            self._control = self._open_control()
        return self._control

    def load_control(self) -> None:
        """Load `control` before the first job and without the lock: that takes a second on a busy box."""
        import_module("carbonsched.supervisor.control.loop")
        import_module("carbonsched.supervisor.estimates.inputs")
        import_module("carbonsched.supervisor.budgets.allocator")

    def _open_control(self) -> "ControlLoop":
        from carbonsched.supervisor.budgets.allocator import BudgetAllocator
        from carbonsched.supervisor.control.clock_dial import ClockDial
        from carbonsched.supervisor.control.director import Director
        from carbonsched.supervisor.control.loop import ControlLoop
        from carbonsched.supervisor.estimates.grid_outlook import GridOutlook
        from carbonsched.supervisor.estimates.inputs import Estimates
        from carbonsched.supervisor.estimates.job_cost import JobCostEstimator
        from carbonsched.supervisor.estimates.loss_outlook import LossOutlook

        grid, costs = (
            GridOutlook(self.watch, self._config, self.supply),
            JobCostEstimator(self.ledger, self.meter, self.clock),
        )
        helper = (
            ClockClient(Path(self.config.power.clocks_socket)) if self.config.power.clocks == "auto" else None
        )
        return ControlLoop(
            clocks=ClockDial(
                helper,
                costs,
                self.meter,
                self.launcher,
                self.runs,
                lambda: self.placement.strangers,
                self.pending.note,
            ),
            clock=self.clock,
            config=self._config,
            estimates=Estimates(
                self.clock,
                self._config,
                grid,
                costs,
                self.metering.idle_w,
                self.prices,
                LossOutlook(self.ledger),
                self.tick_interval,
            ),
            allocator=BudgetAllocator(self.ledger, self.clock, self.pools, self.pending.budget),
            director=Director(self.pending.note, self.clock, self.launcher, self.journal, self._config),
            runs=self.runs,
            problem_of=self._problem_of,
        )

    # ---- beginning and end

    def start(self) -> None:
        """Adopt the jobs of an earlier daemon, and continue metering from the ledger's last rows."""
        self.ledger.sync_later()
        with self.lock:
            marks = self.ledger.marks()
            self.meter.resume(marks)
            self.metering.resume(marks)
            self.began = self.clock.now()
            self._note_account()
            self._note_box()
            Adoption(self).adopt_all()
            self.pools.share_by_weight(list(self.runs.values()))
            self._warn_of_unknown()
            self.placement.slots()

    def stop(self) -> None:
        """Meter once more and write every open row; jobs go on without the daemon."""
        self.starter.starts.wait()
        with self.isolation.alone(None):
            self.tick(HUNG_S)
        with self.lock:
            self.flush()
            if self._control is not None:
                self._control.clocks.stop()
            self.settling.close()
            self.pending.close()
            self.meter.close()

    def reconfigure(self, config: Config) -> None:
        """Apply the settings that may change while jobs run (`Config.reloaded`)."""
        with self.lock:
            self.flush()
            self.config = self.config.reloaded(config)
            self.watch.chain.forecasts_wanted = config.plan.forecasts_wanted
            self._note_account()
            self._note_box()
            self._warn_of_unknown()
            self.pools.configure(config.pools)
            self.placement.slots()

    def _warn_of_unknown(self) -> None:
        api = self.config.api
        access.warn_of_unknown("api.users", api.users or ())
        # the default group need not exist
        if "admins" in api.model_fields_set:
            access.warn_of_unknown("api.admins", api.admins)

    def _note_account(self) -> None:
        """Journal which account budgets are charged by from the next row on, if it changed."""
        account, feeds = self.config.budget_account, [each.shown_name for each in self.config.supply]
        eras = self.ledger.eras()
        before = (eras[-1].account, eras[-1].supplied) if eras else (BudgetAccount.LOCATION, False)
        if before != (account, bool(feeds)):
            self.pending.note(None, "account", {"budget_account": account, "supply": feeds})

    def _note_box(self) -> None:
        """Journal which box the rows are of from now on, unless it is there already."""
        box = self.config.stated.box.dump()
        before = self.ledger.history(None, kinds=("box",), newest=1)
        if not before or any(before[-1][name] != value for name, value in box.items()):
            self.pending.note(None, "box", box)

    # ---- the tick

    def tick(self, wait_s: float = -1) -> None:
        """Read the meters, charge their energy, and act on it. Ticks never overlap, and the lock is not held while waiting for another.
        `wait_s`: how long to wait for another tick before this one is skipped; -1: as long as it takes."""
        if not self._ticking.acquire(timeout=wait_s):
            return
        try:
            self.tick_interval.note()
            with self.counters.ticks.timed():
                self._tick(self._read())
        finally:
            self._ticking.release()

    def _tick(self, deltas: tuple[EnergyDelta, ...]) -> None:
        with self.lock:
            for run in self.runs.values():
                run.forget_trouble()
            self.starter.finish_starts()
            self._meter(deltas, self.live())
            for run in list(self.runs.values()):
                with self.isolation.alone(run):
                    self.lifecycle.advance(run)
            with self.isolation.alone(None):
                self._check_feeds()
            if self.runs:
                self._direct()
                self.starter.start_queued()
            if self._control is not None:
                with self.isolation.alone(None):
                    self._control.clocks.keep()
            self.ticks += 1

    def _check_feeds(self) -> None:
        self.watch.poll_archive()
        self.watch.log_source()
        self.supply.log_doubt()
        feeds = (status.dump() for status in self.watch.changes())
        for change in (*feeds, *self.prices.changes(), *self.supply.changes(), *self.pue.changes()):
            self.pending.note(None, "feed", change)

    def _direct(self) -> None:
        with self.isolation.alone(None):
            self.control.divide_stale_pools()
        for run in list(self.runs.values()):
            if run.alive and not run.aside:
                with self.isolation.alone(run):
                    if run.process.target is None and (late := run.over_time(self.clock.now())):
                        self.lifecycle.end_as_failed(run, f"{late}; {run.resume_words(ending=True)}")
                    self.control.step(run) if run.steered else self._hold(run)

    def _hold(self, run: JobRun) -> None:
        """Hold a command that takes no directives to its budget."""
        if (text := command_budget.warning(run)) is not None:
            run.note_warning()
            self.pending.note(run.id, "note", {"text": text})
        estimates = self.control.estimates
        tick_g = estimates.tick_g(run)
        if command_budget.is_spent(run, tick_g):
            self.control.director.kill_command(run)
        kept = command_budget.grace(run, estimates.g_per_s(run))
        if (ending := command_budget.ending(run, tick_g, kept)) is not None:
            self.control.director.end_command(run, ending)

    def _read(self) -> tuple[EnergyDelta, ...]:
        """Read the meters without the lock: a driver may hang."""
        deltas: tuple[EnergyDelta, ...] = ()
        with self.isolation.alone(None):
            deltas = tuple(self.meter.read())
            self.samples += 1
        return deltas

    def _meter(self, deltas: tuple[EnergyDelta, ...], live: list[JobRun]) -> None:
        """Charge the energy and write it into the ledger before anything else can fail."""
        if step_s := self._wall.step_s():
            self._shift(timedelta(seconds=step_s))
        if slept_s := self._sleep.slept_s():
            log.warning("the box was suspended for %.0f s", slept_s)
            for run in self.runs.values():
                run.sleep(slept_s)
        for run in live:
            with self.isolation.alone(run):
                self.lifecycle.poll(run)
        with self.isolation.alone(None):
            self.placement.look_for_strangers(live, self.clock.monotonic())
        self.late.add(delta for delta in deltas if delta.recovered)
        deltas = tuple(delta for delta in deltas if not delta.recovered)
        pieces, rows = self.metering.charge(deltas, live, self.placement.strangers, self._hosts(deltas, live))
        self.counters.add(pieces)
        for piece in pieces:
            if piece.job_id is not None:
                run = self.runs[piece.job_id]
                with self.isolation.alone(run):
                    watts_high = self.control.estimates.costs.watts_high(run)
                    config = self.config
                    run.charge(piece, config.zone.worst_g_per_kwh, watts_high, config.budget_account)
        runs = list(self.runs.values())
        with self.isolation.alone(None):
            if runs:
                self.control.allocator.grow(runs)
            self.pools.grow(runs)
        self.metering.note_power(live)
        self.pending.save([*rows, *self.metering.flush()] if self.late.waiting else rows)
        self.late.charge(self.runs)

    def _hosts(self, deltas: tuple[EnergyDelta, ...], live: list[JobRun]) -> HostTick:
        """The hosts, and the CPU time of the stretch that they report now."""
        idle_w = {device.id: device.idle_w for device in self.meter.devices if device.kind == "host"}
        use = None
        if any(delta.device in idle_w for delta in deltas):
            with self.isolation.alone(None):
                use = self.cpu.since(live)
        return HostTick(idle_w, use)

    def _shift(self, step: timedelta) -> None:
        log.warning("the wall clock was set by %+.0f s", step.total_seconds())
        for run in self.runs.values():
            run.shift(step)
        self.pools.shift(step)
        if self._control is not None:
            self._control.allocator.shift(step)

    def flush(self) -> None:
        """Write the open rows now."""
        with self.lock:
            self.pending.save(self.metering.flush())

    # ---- one job

    def _problem_of(self, run: JobRun) -> "Problem | None":
        """A job's problem without its budget; None also if it cannot be built, which is then this job's fault alone."""
        problem = None
        with self.isolation.alone(run):
            problem = self.control.estimates.problem_for(run)
        return problem  # noqa: RET504  (what fails above ends here, too)

    def end_again(self, run: JobRun) -> None:
        """End a process that was asked to end before this run was rebuilt."""
        if run.process.target is not None:
            with self.isolation.alone(run):
                self.control.director.end(run, Ending(run.process.target, run.process.target_reason))

    # ---- moving jobs, also on request of the API (with the lock held)

    def enlist(self, job_id: str) -> None:
        """Take a newly submitted job into the queue."""
        with self.lock:
            row = self.ledger.job(job_id)
            if not row.state.ended:  # it may already have been cancelled
                self.put_in(self.journal.fresh(row))

    def requeue(self, run: JobRun, reason: str, actor: str) -> None:
        """Resume a job that is not running from its last checkpoint. Raises StateError for one that is over."""
        self.move(run, JobState.QUEUED, reason, actor)
        run.note_failed(0)
        self.put_in(run)

    def put_in(self, run: JobRun) -> None:
        """Add it to the unfinished jobs."""
        self.runs[run.id] = run
        self.control.allocator.enlist(run)
        self.pools.mark_stale(run)

    def drop(self, run: JobRun) -> None:
        """The job is over."""
        self.pools.close(run)
        self.responsiveness.forget(run)
        self.control.allocator.forget(run)
        self.control.estimates.forget(run)
        self.runs.pop(run.id, None)

    def move(self, run: JobRun, new: JobState, reason: str, actor: str = DAEMON) -> None:
        if new is not run.state:
            move(run.id, run.state, new)
            level = logging.WARNING if new in (JobState.FAILED, JobState.STOPPED) else logging.INFO
            log.log(level, "job %s: %s -> %s: %s", run.id, run.state, new, reason)
        elif reason != run.reason:
            log.info("job %s: %s: %s", run.id, run.state, reason)
        self.ledger.set_state(run.id, new, reason, actor, self.clock.now())
        if new is not run.state:
            self.notifier.moved(run, new, reason)
        run.move(new, reason)

    def find(self, job_id: str) -> tuple[JobRecord, JobRun]:
        """The job's row and run; for a job that is over, the run is rebuilt. Raises NotFoundError. Hold the lock to act on it; to read,
        take the lock later, because a tick must not wait for a long history."""
        run = self.runs.get(job_id)
        row = self.ledger.job(job_id)
        return row, run or self.journal.rebuild(row)

    def job_dir(self, job_id: str) -> Path:
        return self.journal.jobs / job_id

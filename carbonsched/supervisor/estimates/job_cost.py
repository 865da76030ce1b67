"""Estimates what a job takes: joules and seconds per step, of evaluation, checkpoints and loading.

Once a job runs, these are its metered figures; before that they are priors from its check and from other jobs on this box. They are kept
here per job, and gathered by `carbonsched.supervisor.estimates.inputs`.
"""

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from carbonsched.clock import Clock
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.clock_changes import MixedClocksError, changes_of, clock_during
from carbonsched.model.protocol import SegmentDone, SegmentReady
from carbonsched.plan.energy_fit import EnergyFit, StepsSeen
from carbonsched.plan.problem import EnergyModel
from carbonsched.power.base import Meter
from carbonsched.supervisor.estimates.evaluation_cost import EvaluationCost, evaluation_cost
from carbonsched.supervisor.estimates.throughput import Throughput, estimate_throughput
from carbonsched.supervisor.jobs.account import UNKNOWN_W
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.units import MJ_PER_J

LOAD_S = 20.0
"""Prior for loading Python, the libraries and the weights."""
_MARGIN = 1.25
"""Factor over the power seen that no tick should exceed, until segments have been measured."""
_PRIOR_C0 = 0.0
"""Prior for the share of a step's cost that does not depend on ρ. Measured on a CPU: seconds(ρ) / seconds(1) is between ρ − 0.05 and ρ."""
_BUSY_S = 2.0
"""With fewer seconds of steps than this, their power was hardly measured."""
_FRESH_S, _MOST_KEPT = 10.0, 64
"""An estimate of throughput reads many jobs of the ledger, with the supervisor's lock held: for so many seconds it serves all jobs of a
sweep, unless one ends meanwhile; estimates kept at most."""
_OF_MODEL_SD = 0.25
"""Relative sd of a first estimate based on steps of the same model on this box."""
_MOVED, _MOVED_STEPS = 0.2, 3
"""A plan is made again in mid-segment if the joules per step differ by the first share from those assumed, after the second number of steps."""
GUESS = 4.0
"""Factor by which the guessed cost of a step may be too high: the first pass of a process takes up to four times as long as a step."""
_BYTES_PER_PARAM = 12
"""Checkpoint size: weights and two AdamW moments in fp32."""
_DISK_BYTES_PER_S = 3e8
"""Prior for the rate at which a checkpoint is written."""
_CHECKPOINT_S = 10.0
"""Prior for the checkpoint of a model whose size is unknown."""
_WEIGHTS_SHARE = 1 / 3
"""Share of a checkpoint's time that saving the weights takes."""


@dataclass(slots=True)
class JobCostEstimator:
    """Estimates the costs of this box's jobs.

    Example::

        energy = costs.estimate(run)
        energy.joules(rho=0.6, steps=500)  # of one segment
    """

    ledger: Ledger
    meter: Meter
    clock: Clock
    fits: dict[str, EnergyFit] = field(default_factory=dict)
    """Job → its energy model, fitted to every finished segment."""
    evaluations: dict[str, EvaluationCost] = field(default_factory=dict)
    """Job → estimated evaluation cost, from before its first evaluation."""
    _throughputs: dict[Any, tuple[float, Throughput]] = field(default_factory=dict)
    """Properties of a job that determine its throughput → (monotonic time of the estimate, the estimate)."""

    def fresh(self) -> "JobCostEstimator":
        """An estimator without jobs, for explaining a job that is not submitted."""
        return JobCostEstimator(self.ledger, self.meter, self.clock)

    def forget(self, run: JobRun) -> None:
        """The job is over."""
        self.fits.pop(run.id, None)
        self.evaluations.pop(run.id, None)
        self._throughputs.clear()  # the next job is estimated from this one

    def estimate(self, run: JobRun) -> EnergyModel:
        """The job's energy model, with evaluation, checkpoints and what follows the last segment."""
        own, clock = self.at_own_clock(run), run.clock
        return replace(
            own,
            joules_full=own.joules_full * clock.joules,
            seconds_full=own.seconds_full * clock.seconds,
        )

    def at_own_clock(self, run: JobRun) -> EnergyModel:
        """The same at the board's own clock, even if another one is locked."""
        evaluation, ready = self.evaluation(run), run.progress.ready
        fit = self.fits.get(run.id)
        if fit is None:
            fit = self._first_fit(run, ready) if ready is not None else self._prior(run)
        fit, told = fit.with_steps(_steps_seen(run)), run.directive
        rho = told.rho if told is not None and run.spec.train.scheduler == "budget" else None
        model = fit.model() if rho is None else fit.model((rho,))  # such a job does not change its ρ
        return _with_overheads(run, model, evaluation)

    def has_moved(self, run: JobRun) -> bool:
        """Whether a step costs so much more or less than the plan of the first segment assumed that a new plan is worthwhile."""
        fit, planned = self.fits.get(run.id), run.plan.step_j if run.plan is not None else None
        pace = run.progress.pace.estimate()
        if planned is None or pace is None or pace.steps < _MOVED_STEPS or fit is None or fit.observations:
            return False
        return abs(math.log(max(self.estimate(run).joules_full, 1e-12) / planned)) > math.log1p(_MOVED)

    def is_guess(self, run: JobRun) -> bool:
        """Whether the cost of a step is a guess: neither this job nor an earlier one of its model on this box has been measured."""
        fit = self.fits.get(run.id)
        if (fit is not None and fit.observations) or run.progress.pace.estimate() is not None:
            return False
        return run.checked is None or not self.throughput(run).of_model

    def evaluation(self, run: JobRun) -> EvaluationCost | None:
        """Estimated evaluation cost; None if nothing was estimated before it was measured."""
        if run.id not in self.evaluations and run.checked is not None and not run.progress.evaluated:
            throughput = self.throughput(run)
            self.evaluations[run.id] = evaluation_cost(
                self.ledger, self.meter.devices, run.spec, run.checked, throughput
            )
        return self.evaluations.get(run.id)

    def throughput(self, run: JobRun) -> Throughput:
        """Expected throughput of the job on this box, before it was measured."""
        devices = tuple(device for device in self.meter.devices if device.id in run.process.devices)
        devices = devices or tuple(self.meter.devices)
        train, now = run.spec.train, self.clock.monotonic()
        key = (devices, run.spec.model, train.autocast, train.device, train.processes, train.threads)
        known = self._throughputs.get(key)
        if known is None or not 0 <= now - known[0] < _FRESH_S:
            if len(self._throughputs) >= _MOST_KEPT:
                self._throughputs.clear()
            known = now, estimate_throughput(self.ledger, devices, run.spec)
            self._throughputs[key] = known
        return known[1]

    def watts_high(self, run: JobRun) -> float:
        """Power that no tick of this job should exceed: by the model, else by the power seen and a margin, or by the devices' rating."""
        fit, seen_w = self.fits.get(run.id), run.process.power_w
        if fit is not None:
            return fit.model().watts_high
        if seen_w is not None:
            return _MARGIN * seen_w
        return sum(limit or UNKNOWN_W for limit in self._limits(run)) or UNKNOWN_W

    def observe(self, run: JobRun, done: SegmentDone) -> None:
        """Fit the job's energy model to a finished segment: its metered joules without overheads."""
        fit = self.fits.get(run.id)
        if fit is not None:
            self.fits[run.id] = self._observe(fit, run, done)

    def _observe(self, fit: EnergyFit, run: JobRun, done: SegmentDone) -> EnergyFit:
        if run.spec.carbon.clocks == "off":
            return _observe(fit, run, done, None)
        steps_s = max(done.seconds - done.importance_seconds - done.selection_seconds, 0.0)
        try:
            changes = changes_of(self.ledger.history(run.id, kinds=("clocks",)))
            clock = clock_during(changes, done.at - timedelta(seconds=steps_s), done.at)
        except MixedClocksError:
            return fit  # its steps belong to no single clock
        return _observe(fit, run, done, clock)

    def _first_fit(self, run: JobRun, ready: SegmentReady) -> EnergyFit:
        """A prior from the job's own throughput and its devices' power, fitted to the segments it has done.

        Earlier steps of the same model are better evidence than an importance pass: the first pass of a process takes up to four times as
        long as a step.
        """
        of_model = run.checked is not None and self.throughput(run).of_model
        told = None if of_model else ready.seconds_per_step
        fit = EnergyFit.prior(
            seconds_full=told or self._prior_step_s(run),
            watts=run.process.power_w or self.watts_high(run),
            c0=_PRIOR_C0,
            rated_watts=sum(limit or 0.0 for limit in self._limits(run)) or None,
            sd=_OF_MODEL_SD if of_model else 1.0,
        )
        for done in run.progress.done:
            fit = self._observe(fit, run, done)
        self.fits[run.id] = fit
        return fit

    def _prior(self, run: JobRun) -> EnergyFit:
        """The prior of a job that has not started, from its check and the throughput of the box."""
        return EnergyFit.prior(
            seconds_full=self._prior_step_s(run), watts=self.throughput(run).watts, c0=_PRIOR_C0
        )

    def _prior_step_s(self, run: JobRun) -> float:
        """Seconds of a full step before any was measured; also used if the first pass only warmed up the board."""
        return max(self.throughput(run).step_s(run.checked), 1e-6) if run.checked else 1.0

    def _limits(self, run: JobRun) -> list[float | None]:
        return [device.watts_limit for device in self.meter.devices if device.id in run.process.devices]


def stop_j(run: JobRun, energy: EnergyModel, now: datetime) -> float:
    """Joules that a stop may still take: the rest of the interrupted step at ρ = 1, or a batch of importance or held-out rows, and a
    checkpoint, unless all of it is one step.

    A step that begins before the trainer reads the stop was granted by the lease.
    """
    progress = run.progress
    saved = (
        progress.ready is None
        and progress.checkpoint is not None
        and progress.checkpoint.step == progress.step
    )
    step_elapsed_s = max(energy.seconds_full - run.step_elapsed_s(now), 0.0)
    if _is_last_step(run):
        step_elapsed_s = 0.0  # stop or not, nothing is trained after it
    if progress.ready is None and progress.done and progress.is_last(progress.done[-1]):
        step_elapsed_s = 0.0  # no step follows
    if progress.waiting is not None:
        step_elapsed_s = 0.0  # no step follows either
    if progress.ready is None or progress.ready.first_step == progress.step:
        step_elapsed_s = max(step_elapsed_s, _batch_s(run))
    return energy.watts_high * (step_elapsed_s + (0.0 if saved else checkpoint_s(run)))


def _is_last_step(run: JobRun) -> bool:
    """Whether the current or next step is the last of a cooldown."""
    told, done = run.directive, run.progress.step
    if run.progress.ready is None or told is None or told.phase != "cooldown" or done is None:
        return False
    return (told.cooldown_from or 0) + (told.cooldown_steps or 0) <= done + 1


def loading_j(run: JobRun, energy: EnergyModel, evaluation: EvaluationCost | None) -> float:
    """Joules of the job's next start, until its first segment."""
    before_s = evaluation.before_s if evaluation is not None else 0.0
    seconds = LOAD_S + before_s if run.progress.load_s is None else run.progress.load_s
    return seconds * energy.joules_full / max(energy.seconds_full, 1e-9)


def mean_watts(energy: EnergyModel) -> float:
    """Power of a full step by the model, W."""
    return energy.joules_full / energy.seconds_full if energy.seconds_full > 0 else energy.watts_high


def checkpoint_s(run: JobRun) -> float:
    if run.progress.checkpoint is not None:
        return run.progress.checkpoint.seconds
    known = run.progress.started or run.checked
    return known.params * _BYTES_PER_PARAM / _DISK_BYTES_PER_S if known else _CHECKPOINT_S


def _batch_s(run: JobRun) -> float:
    """Seconds of a batch of importance or held-out rows, as far as measured. The trainer checks its lease between two of them, and at every
    token while it generates text."""
    ready = run.progress.ready
    found = [ready.importance_seconds / max(ready.importance_batches, 1)] if ready else []
    batch = run.spec.evaluate.batch_size or run.spec.train.batch_size
    losses = [event for event in run.progress.evaluated if "generated_rows" not in event.metrics]
    found += [event.seconds / max(math.ceil(event.samples / batch), 1) for event in losses]
    return max(found, default=0.0)


def _evaluation_s(run: JobRun, evaluation: EvaluationCost | None) -> float:
    """Seconds of the held-out evaluation after training, by the first evaluation; generated text takes most of them."""
    if not run.progress.evaluated:
        return evaluation.after_s if evaluation is not None else 0.0
    first, started = run.progress.evaluated[0], run.progress.started
    rows = first.metrics.get("generated_rows") or first.samples
    return first.seconds * (1 + (started.test_rows if started else 0) / max(rows, 1))


def _with_overheads(run: JobRun, energy: EnergyModel, evaluation: EvaluationCost | None) -> EnergyModel:
    """Add what follows the last segment (another evaluation, saving the weights) and what follows each segment."""
    tail_s = _evaluation_s(run, evaluation) + checkpoint_s(run) * _WEIGHTS_SHARE + 1.0
    watts = mean_watts(energy)
    segment_s = evaluation.segment_s if evaluation is not None else 0.0
    overhead_s = energy.overhead_s or checkpoint_s(run) + segment_s
    return replace(
        energy,
        tail_s=tail_s,
        tail_j=tail_s * watts,
        overhead_s=overhead_s,
        overhead_j=energy.overhead_j or overhead_s * watts,
    )


def _steps_seen(run: JobRun) -> StepsSeen | None:
    """What the current segment's steps show, if they run at the board's own clock."""
    pace = run.progress.pace.estimate()
    if pace is None or run.spec.carbon.clocks != "off":
        return None
    busy_mj, busy_s = run.account.busy.get(run.process.segment or 0, (0, 0.0))
    watts = busy_mj / MJ_PER_J / busy_s if busy_s >= _BUSY_S else run.process.power_w
    joules = None if watts is None else watts * pace.seconds
    return StepsSeen(pace.rho, joules, pace.seconds, pace.sd)


def _observe(fit: EnergyFit, run: JobRun, done: SegmentDone, clock: int | None) -> EnergyFit:
    k = done.k
    total_j = run.account.segment_mj.get(k, 0) / MJ_PER_J
    wall_s = (done.at - run.process.segment_start(k, done.at)).total_seconds() - run.process.asleep.get(
        k, 0.0
    )
    if done.steps == 0 or total_j <= 0 or wall_s <= 0:
        return fit
    share_j = total_j * min(done.seconds / wall_s, 1.0)
    busy_mj, busy_s = run.account.busy.get(k, (0, 0.0))
    # the power during steps: a segment that also waited must not look cheap
    joules = min(busy_mj / MJ_PER_J / busy_s * done.seconds, total_j) if busy_s >= _BUSY_S else share_j
    again = _follows_another(run, done)
    return fit.observe(
        rho=done.rho_realised,
        steps=done.steps,
        joules=joules,
        seconds=done.seconds,
        overhead_j=total_j - joules if again else None,
        overhead_s=max(wall_s - done.seconds, 0.0) if again else None,
        clock=clock,
    )


def _follows_another(run: JobRun, done: SegmentDone) -> bool:
    """Whether the same process did the segment before: its start-up costs then do not recur."""
    return any(d.k == done.k - 1 and run.process.lived_at(d.at) for d in run.progress.done)

"""Forecasts a job's held-out loss at its end, from its own losses and from earlier jobs of the same model and data."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from carbonsched.ledger.ledger import Ledger
from carbonsched.model.job import JobSpec
from carbonsched.model.methods.efficiency import KNOWN, Efficiency, prior_efficiency
from carbonsched.model.methods.lora import ALL_LINEAR
from carbonsched.model.methods.traits import METHODS
from carbonsched.model.protocol import SegmentDone
from carbonsched.model.setting import Setting, SettingPoint
from carbonsched.plan.loss_curve import HeldOut, LossCurve, LossHistory, Prediction, Stretch
from carbonsched.plan.problem import EnergyModel, Plan, PlanPoint, Problem
from carbonsched.supervisor.estimates.throughput import RECENT_JOBS, same_model
from carbonsched.supervisor.jobs.job_run import JobRun

_OTHERS = 4
"""Most earlier jobs used, newest first."""
_MOST = 24
"""Most stretches of a history; neighbouring stretches of one setting are joined."""
_EVALUATIONS = 100
_RHOS, _ROOM = (0.5, 0.6, 0.7, 0.8), 0.02
"""The same values as in trainer/methods/auto.py."""
_WHOLE = 0.99
"""From this realised ρ on, all tensors were trained."""
_NEAR = 1e-6
"""Tolerance of ρ for rounding."""


@dataclass(frozen=True, slots=True)
class LossForecast:
    """The held-out loss that a job is expected to end at.

    Example:
        >>> LossForecast(Prediction(2.87, 2.85, 2.89), Prediction(3.5, 3.5, 3.5), relative=False, basis="its own losses").end.margin
        0.02
    """

    end: Prediction
    now: Prediction
    relative: bool
    """Whether these are shares of the loss before training, because no loss is known yet."""
    basis: str
    """What the forecast is based on, for people."""


@dataclass(slots=True)
class LossOutlook:
    """Keeps the histories of earlier jobs, and fits each job's curve to them and to its own losses.

    Example::

        forecast = outlook.forecast(run, problem, plan)
        forecast.end.loss, forecast.end.margin
    """

    ledger: Ledger
    _others: dict[str, tuple[LossHistory, ...]] = field(default_factory=dict)
    """Job → histories of earlier ones."""

    def fresh(self) -> "LossOutlook":
        """A copy without jobs, for explaining a job that is not submitted."""
        return LossOutlook(self.ledger)

    def forget(self, run: JobRun) -> None:
        """The job is over."""
        self._others.pop(run.id, None)

    def curve(self, run: JobRun) -> LossCurve:
        """The job's loss curve, as of now."""
        return LossCurve.fit(_own(run), self._earlier(run))

    def forecast(
        self, run: JobRun, problem: Problem, plan: Plan, curve: LossCurve | None = None
    ) -> LossForecast | None:
        """The loss at the end of a plan; None if the plan trains nothing. curve: the job's, if the caller has it."""
        if not plan.segments:
            return None
        curve = curve or self.curve(run)
        return LossForecast(
            end=curve.predict(_planned(run, problem, plan)),
            now=curve.predict(()),
            relative=curve.relative,
            basis=self._basis(run, curve),
        )

    def points(self, run: JobRun, energy: EnergyModel, floor: float) -> tuple[PlanPoint, ...]:
        """The settings that the job's next segment can train in: those its trainer offered, or those it is expected to offer; empty: there
        is only one."""
        traits = METHODS.get(run.spec.train.method)
        if traits is None or not traits.switches:
            return ()
        ready, curve = run.progress.ready, self.curve(run)
        offered = _within(run.spec, _expected_settings(run, floor) if ready is None else ready.points, floor)
        full = next((p.gain for p in offered if p.setting.method == "full"), 0.0)
        points = []
        for point in offered:
            setting = point.setting
            prior = worth(run.spec, setting.method, point.rho, floor, setting.gradient_share)
            if (
                setting.method not in KNOWN and full > 0
            ):  # a trainer other than ours knows its own settings best
                prior = Efficiency(max(point.gain / full, 0.0), prior.sd)
            points.append(
                PlanPoint(
                    setting.method,
                    point.rho,
                    joules=energy.joules(point.rho, 1) - energy.overhead_j,
                    seconds=energy.seconds(point.rho, 1) - energy.overhead_s,
                    worth=curve.efficiency(setting.method, prior).median,
                    share=setting.gradient_share,
                    whole_job=setting.method in METHODS and METHODS[setting.method].trains_adapters,
                )
            )
        return tuple(points)

    def _basis(self, run: JobRun, curve: LossCurve) -> str:
        count = len(self._earlier(run))
        others = f"{count} earlier job{'s' if count > 1 else ''} of this model and data" if count else ""
        own = "its own losses" if run.progress.done or run.progress.evaluated else ""
        known = " and ".join(part for part in (own, others) if part)
        if curve.relative:
            return "no loss of this model and data is known here: shares of the loss before training, by what fine-tunings of other data came to"
        return known

    def _earlier(self, run: JobRun) -> tuple[LossHistory, ...]:
        if run.id not in self._others:
            alike = [job for job in same_model(self.ledger.newest(RECENT_JOBS), run.spec) if job.id != run.id]
            found = (self._of_job(job.id, job.spec) for job in alike if _same_data(job.spec, run.spec))
            self._others[run.id] = tuple(history for history in found if history is not None)[:_OTHERS]
        return self._others[run.id]

    def _of_job(self, job_id: str, spec: JobSpec) -> LossHistory | None:
        """The history of an earlier job; None if it has no segment or no held-out loss."""
        done = [segment.done for segment in self.ledger.segments(job_id)]
        entries = self.ledger.history(job_id, kinds=("evaluated",), newest=_EVALUATIONS)
        held = [(e["when"], e["step"], e["loss"]) for e in entries]
        history = _history(spec, done, held, steps_per_epoch=None)
        return history if history.stretches and history.held_out else None


def _expected_settings(run: JobRun, floor: float) -> tuple[SettingPoint, ...]:
    """The settings that a trainer of method auto will offer, by the job's check; otherwise full fine-tuning, and tensors at a few ρ above
    the floor."""
    if run.checked is not None and run.checked.settings:
        return tuple(SettingPoint(setting=s.setting, rho=s.rho, gain=0.0) for s in run.checked.settings)
    rhos = [rho for rho in _RHOS if rho > floor + _ROOM]
    named = [("full", 1.0), *(("greentrainer", rho) for rho in rhos)]
    return tuple(SettingPoint(setting=Setting(method=method), rho=rho, gain=0.0) for method, rho in named)


def _within(spec: JobSpec, offered: tuple[SettingPoint, ...], floor: float) -> tuple[SettingPoint, ...]:
    """The settings between `rho_min` and `rho_max`; if there is none, tensors at the bound itself."""
    low, high = spec.carbon.rho_min or 0.0, spec.carbon.rho_max
    within = tuple(p for p in offered if low - _NEAR <= p.rho <= high + _NEAR)
    if within or not offered:
        return within
    at = max(high, floor)
    return (SettingPoint(setting=Setting(method="greentrainer"), rho=at, gain=0.0),)


def _same_data(one: JobSpec, other: JobSpec) -> bool:
    return (
        one.data == other.data
        and one.train.batch_size * one.train.gradient_accumulation
        == other.train.batch_size * other.train.gradient_accumulation
    )


def _own(run: JobRun) -> LossHistory:
    held = [(e.when, e.step, e.loss) for e in run.progress.evaluated]
    per_epoch = None
    if run.checked is not None:
        batch = run.spec.train.batch_size * run.spec.train.gradient_accumulation
        per_epoch = max(run.checked.rows / batch, 1.0)
    floor = run.checked.rho_floor if run.checked is not None else None
    return _history(run.spec, run.progress.done, held, per_epoch, floor)


def worth(
    spec: JobSpec, method: str, rho: float, floor: float | None, share: float | None = None
) -> Efficiency:
    """What a step at ρ brings by the prior; a method that trains at one ρ of its own is asked at that."""
    if method == "full":
        rho = 1.0
    everywhere = spec.train.lora_targets == ALL_LINEAR
    if floor is None:
        return prior_efficiency(method, rho, share=share, all_linear=everywhere)
    return prior_efficiency(method, rho, floor=floor, share=share, all_linear=everywhere)


def setting_of(spec: JobSpec, done: SegmentDone) -> Setting:
    """The setting a segment was trained in. A segment of method auto that was given a ρ alone trained tensors, tokens or the whole model."""
    if done.setting is not None:
        return done.setting
    traits = METHODS.get(spec.train.method)
    if traits is not None and traits.switches:
        if done.gradient_share is not None and done.gradient_share < 1:
            return Setting(method="tokens", gradient_share=done.gradient_share)
        return Setting(method="full" if done.rho_realised > _WHOLE else "greentrainer")
    return Setting(method=spec.train.method)


def _history(
    spec: JobSpec,
    done: Sequence[SegmentDone],
    held: Sequence[tuple[str, int, float]],
    steps_per_epoch: float | None,
    floor: float | None = None,
) -> LossHistory:
    """Segments as stretches (neighbours of one setting joined), with the held-out losses at their ends."""
    stretches: list[Stretch] = []
    ends: list[int] = []
    evaluated = {step for when, step, _ in held if when != "test"}
    size = -(-len(done) // _MOST)
    joined = 0
    for d in done:
        setting = setting_of(spec, d)
        epoch = d.first_step / steps_per_epoch if steps_per_epoch else 0.0
        made = Stretch(
            setting.method,
            float(d.steps),
            worth(spec, setting.method, d.rho_realised, floor, setting.gradient_share),
            d.loss,
            float(int(epoch)),
        )
        last = stretches[-1] if stretches else None
        alike = last is not None and last.method == made.method and ends[-1] not in evaluated
        if last is not None and alike and joined < size:
            stretches[-1], joined = _join(last, made), joined + 1
            ends[-1] = d.first_step + d.steps
        else:
            stretches.append(made)
            ends.append(d.first_step + d.steps)
            joined = 1
    known = [
        HeldOut(sum(end <= step for end in ends), loss)
        for when, step, loss in held
        if when != "test" and (step == 0 or step in ends)
    ]
    return LossHistory(tuple(stretches), tuple(known[-_MOST:] if len(known) > _MOST else known))


def _join(one: Stretch, other: Stretch) -> Stretch:
    steps = one.steps + other.steps
    part = other.steps / steps
    losses = [s.loss for s in (one, other)]
    loss = None if None in losses else one.loss * (1 - part) + other.loss * part  # type: ignore[operator]
    median = one.efficiency.median * (1 - part) + other.efficiency.median * part
    sd = max(one.efficiency.sd, other.efficiency.sd)
    return Stretch(one.method, steps, Efficiency(median, sd), loss, max(one.epoch, other.epoch))


def _planned(run: JobRun, problem: Problem, plan: Plan) -> list[Stretch]:
    """The plan's segments as stretches of one ρ each; those beyond the plan at its mean ρ."""
    method, steps = run.spec.train.method, {s.k: s.steps for s in problem.segments}
    floor = run.checked.rho_floor if problem.points and run.checked else problem.segments[0].frontier[0][0]
    constant = method in METHODS and METHODS[method].constant_rho
    sums: dict[tuple[str, float, float | None], float] = {}
    for p in plan.segments:
        mine = (p.point.method, p.point.share) if p.point is not None else (method, None)
        key = (mine[0], round(floor if constant else p.rho, 2), mine[1])
        sums[key] = sums.get(key, 0.0) + steps[p.k]
    planned = sum(sums.values())
    # a long job is planned only as far as the forecast reaches; a plan of settings skips the segments it drops
    more = 1.0 if problem.points else sum(steps.values()) / planned
    return [
        Stretch(m, n * more, worth(run.spec, m, rho, floor, share)) for (m, rho, share), n in sums.items()
    ]

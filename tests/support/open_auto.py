"""A trainer of a job of open end that plays itself on the rig: it obeys phases as the real one does, by its own schedule."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from support.rig import Played

from carbonsched.model.protocol import Directive
from trainer.job.budget_schedule import BudgetSchedule
from trainer.job.directives import Granted
from trainer.job.segment import Schedule

TAIL_S = 6
"""Evaluation and saving after the last step."""


@dataclass
class OpenAuto:
    """Two full steps a second, at ρ so many more; the rig's curve says what they take. Evaluates before and after."""

    job: Played
    most: int | None = None
    length: int = 60
    rates: list[float] = field(default_factory=list)
    """Of every step taken ÷ the job's."""
    offers: Sequence[tuple[str, float, float | None]] = ()
    """(method, ρ, share of the tokens) of the settings that it can train in; none: all of the model, always."""
    trained: list[str] = field(default_factory=list)
    """The method of every step."""
    believed_s: float = 0.9
    """What it says before its first segment that a full step takes."""
    _loaded: bool = False
    _ready: bool = False
    _ends_in: int | None = None
    _first: int = 0
    _seconds: float = 0.0
    over: str | None = None

    def __post_init__(self) -> None:
        self.job.rig.autos.append(self)
        self.whole = Schedule.of(4 * self.length, 4, 1, None, self.most, self.length, is_open=True)
        self.schedule = BudgetSchedule.of(0, 0.2, self.whole)

    @property
    def floor(self) -> float:
        return 0.4 if self.offers else 1.0

    @property
    def step(self) -> int:
        return len(self.rates)

    def second(self) -> None:
        job = self.job
        if job.rig.launcher.poll(job.dir).state != "running" or self.over:
            return
        if not self._loaded:
            self._loaded = True
            job.started(segments=None, steps=None, most_steps=self.most)
            job.say("evaluated", when="before", step=0, loss=3.0, samples=8, tokens=80, seconds=TAIL_S - 1.0)
        if self._ends_in is not None:
            self._ends_in -= 1
            if self._ends_in <= 0:
                self._end("done")
            return
        told = job.dir / "control.json"
        directive = Directive.model_validate_json(told.read_text())
        if directive.action == "stop":
            self._end("stopped")
            return
        k = self.step // self.length
        if not self._ready:
            self._offer(k)
            return
        if directive.k != k:
            return
        self._train(k, directive)

    def _offer(self, k: int) -> None:
        self._ready, self._first, self._seconds = True, self.step, 0.0
        known = self.schedule.narrow(self.whole, self.step)
        end = min(known.bounds(self.step)[2], self.schedule.steps)
        self.job.say(
            "segment_ready",
            k=k,
            segments=None if known.is_open else known.segments,
            first_step=self.step,
            steps=end - self.step,
            steps_left=None if known.is_open else known.steps - self.step,
            most_steps=self.most,
            segment_steps=self.length,
            cooldown_from=self.schedule.cools_from(self.step),
            importance_batches=0,
            frontier=[{"rho": self.floor, "importance": self.floor}, {"rho": 1.0, "importance": 1.0}][
                -1 - bool(self.offers) :
            ],
            flops_full=1e12,
            rho_floor=self.floor,
            points=[
                {
                    "setting": {"method": method, "gradient_share": share},
                    "rho": rho,
                    "gain": rho,
                    "low": 0.0,
                    "high": 1.0,
                }
                for method, rho, share in self.offers
            ],
            seconds_per_step=self.believed_s,
        )

    def _train(self, k: int, directive: Directive) -> None:
        job = self.job
        rho = directive.rho if self.offers and directive.rho is not None else 1.0
        setting = None if directive.setting is None else directive.setting.model_dump()
        for _ in range(round(2 / rho)):
            self.trained.append("full" if directive.setting is None else directive.setting.method)
            self.schedule.obey(Granted.by(directive, 1.0), self.step)
            self.rates.append(self.schedule.factor(self.step))
            if self.schedule.is_over(self.step) or self.step % self.length == 0:
                break
        self._seconds += 1.0
        over = self.schedule.is_over(self.step)
        job.say("step", k=k, step=self.step, steps=None, loss=2.0, lr=1e-3, seconds=0.5 * rho, rho=rho)
        if over or self.step % self.length == 0:
            self._ready = False
            job.say(
                "segment_done", k=k, first_step=self._first, steps=self.step - self._first, rho_directed=rho,
                rho_planned=rho, rho_realised=rho, setting=setting, flops=1e12, flops_full=1e12, loss=2.0, seconds=self._seconds,
                importance_seconds=0.0, selection_seconds=0.0, selected=["a"], directive_seq=directive.seq,
                **self.schedule.segment_end(self.step),
            )  # fmt: skip
            job.say("checkpoint", k=k, step=self.step, path="c", seconds=0.5, bytes=10)
        if over:
            self._ends_in = TAIL_S

    def _end(self, reason: str) -> None:
        self.over = reason
        self.job.say("finished", step=self.step, reason=reason)
        self.job.rig.launcher.end(self.job.dir)

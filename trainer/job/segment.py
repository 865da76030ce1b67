"""Records one segment of training: what was directed, selected, planned and really run.

Steps and losses are added as they happen; the events `segment_ready`, `step` and `segment_done` are made from the record.
It is kept in checkpoints as JSON, so that a resumed process goes on in the middle of a segment.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from carbonsched.errors import InputError
from carbonsched.model.protocol import MOST_SEGMENTS, FrontierPoint, SegmentDone, SegmentReady, Step, Waste
from carbonsched.model.setting import Setting, SettingPoint

OPEN_STEPS = 1_000_000
"""Most steps of a job that nobody gave a bound."""
# names that stand in checkpoints for fields that are called otherwise here
_IN_CHECKPOINT = {"spans": "stretches", "rho_directed": "directed"}


@dataclass(slots=True)
class SelectionSpan:
    """Steps under one selection; a segment has more than one where ρ changed in its midst.

    Example:
        >>> span = SelectionSpan(("lm_head.weight",), cost_ratio=0.5, counted_ratio=0.48, counted_cost_ratio=0.5)
        >>> span.flops_at_cost = 1000.0
        >>> span.flops
        960.0
    """

    selected: tuple[str, ...]
    cost_ratio: float
    """Planned: cost(S) ÷ T_full at the profiled shape; expected, where each step's cost is drawn."""
    saving: float = 0.0
    """What the activation cache was counted on to take off: a step that it spares nothing costs so much more."""
    gradient_share: float | None = None
    """τ that was asked for; None: every token."""
    counted_ratio: float | None = None
    """Counted over the first real step ÷ T_full of that step's shapes; None until it ran."""
    recomputed_ratio: float = 0.0
    """Recomputation by gradient checkpointing, likewise."""
    steps: int = 0
    flops_full: float = 0.0
    """T_full of the true shapes of these steps."""
    flops_at_cost: float = 0.0
    """What the cost model makes of these steps: each step's cost ratio × its T_full."""
    counted_cost_ratio: float = 1.0
    """The cost model's ratio of the step that was counted."""

    @property
    def flops(self) -> float:
        """The cost model's, set right by what the cost model missed in the counted one."""
        return (self.counted_ratio or 0.0) * self.flops_at_cost / self.counted_cost_ratio


@dataclass(slots=True)
class SegmentRecord:
    """The account of one segment, from its first step to its last.

    Example:
        >>> segment = SegmentRecord(k=0, first=0, end=2, expected_full=200.0)
        >>> segment.select(("lm_head.weight",), cost_ratio=0.5)
        >>> segment.add_step(100.0, seconds=1.0, counted=52.0, recomputed=0.0)
        >>> segment.add_step(100.0, seconds=1.0, counted=None, recomputed=0.0)
        >>> segment.rho_planned, segment.rho_realised
        (0.5, 0.52)
    """

    k: int
    first: int
    end: int
    """Optimizer steps [first, end)."""
    expected_full: float
    """T_full of the batches to come, as foreseen when the segment began."""
    own_ratio: float | None = None
    """Of everything that the user left trainable: its cost ÷ T_full."""
    importance: dict[str, float] = field(default_factory=dict)
    importance_batches: int = 0
    importance_flops: float = 0.0
    importance_recomputed: float = 0.0
    importance_seconds: float = 0.0
    importance_error: float | None = None
    importance_share: float = 0.0
    """Of the importance batches: their counted FLOPs ÷ T_full of the segment as planned (m/N at equal shapes)."""
    selection_seconds: float = 0.0
    step_seconds: float = 0.0
    rho_directed: float = 1.0
    directive_seq: int | None = None
    spans: list[SelectionSpan] = field(default_factory=list)
    loss_sum: float = 0.0
    loss_steps: int = 0
    fault: str | None = None
    """What was amiss with the gradients of its first step, in words."""
    passes: float = 1.0
    """Forward passes with a gradient per batch, in the step that had most: 1 is foreseen."""
    spared: float = 0.0
    """FLOPs that the activation cache saved beyond what was counted on."""
    setting: dict[str, Any] | None = None
    """As directed, the document's fields; None: as the job's own method trains."""
    cut_from: int | None = None
    """Steps that were planned, where training ended before the last of them."""
    tokens: float = 0.0
    """Real tokens of the steps done, where rows run in two parts."""
    trained_tokens: float = 0.0
    """Of these, those that gradient flowed through."""
    counted_steps: int = 0
    """Steps that the next three cover: those of a process that did not count them are missing (trainer/training/waste.py)."""
    flops_all_logits: float = 0.0
    """T_full of the true shapes with logits for every token."""
    flops_stock: float = 0.0
    """Likewise of the same batches, each padded to its longest row alone."""
    row_lengths: dict[str, int] = field(default_factory=dict)
    """Where rows are grouped by length: how many there were of each, by "tokens,target tokens"."""

    @property
    def steps(self) -> int:
        return self.end - self.first

    @property
    def current(self) -> SelectionSpan:
        return self.spans[-1]

    @property
    def steps_done(self) -> int:
        return sum(s.steps for s in self.spans)

    @property
    def rho_planned(self) -> float:
        """Planned ρ, importance batches included; by steps where the selection changed."""
        done = [s for s in self.spans if s.steps]
        if not done:
            return self.current.cost_ratio + self.importance_share
        return sum(s.cost_ratio * s.steps for s in done) / sum(s.steps for s in done) + self.importance_share

    @property
    def flops_full(self) -> float:
        return sum(s.flops_full for s in self.spans)

    @property
    def flops(self) -> float:
        """Counted: importance batches and steps on true shapes."""
        return self.importance_flops + sum(s.flops for s in self.spans)

    @property
    def flops_recomputed(self) -> float:
        return self.importance_recomputed + sum(s.recomputed_ratio * s.flops_full for s in self.spans)

    @property
    def rho_realised(self) -> float:
        return self.flops / self.flops_full

    @property
    def rho_so_far(self) -> float:
        """Realised ρ of the steps done, with their share of the importance batches; planned ρ before the first."""
        steps = sum(s.flops for s in self.spans)
        return self.importance_share + steps / self.flops_full if self.flops_full else self.rho_planned

    @property
    def loss(self) -> float | None:
        return self.loss_sum / self.loss_steps if self.loss_steps else None

    @property
    def seconds(self) -> float:
        return self.importance_seconds + self.selection_seconds + self.step_seconds

    def select(
        self, names: tuple[str, ...], cost_ratio: float, saving: float = 0.0, share: float | None = None
    ) -> None:
        """From the next step on train `names`; a span that no step ran in is replaced."""
        if self.spans and not self.current.steps:
            self.spans.pop()
        self.spans.append(SelectionSpan(names, cost_ratio, saving, share))

    def set_importance(
        self, flops: tuple[float, ...], seconds: float, error: float | None, recomputed: float = 0.0
    ) -> None:
        """Set what measuring importance took: counted FLOPs of each batch, wall seconds, and the relative error.

        recomputed: FLOPs of gradient checkpointing, apart from these.
        """
        self.importance_batches, self.importance_flops = len(flops), sum(flops)
        self.importance_seconds, self.importance_error = seconds, error
        self.importance_recomputed = recomputed
        self.importance_share = self.importance_flops / self.expected_full

    def add_loss(self, loss: float, steps: int) -> None:
        """Add the mean loss of the last `steps` optimizer steps."""
        self.loss_sum += loss * steps
        self.loss_steps += steps

    def add_step(
        self,
        flops_full: float,
        seconds: float,
        counted: float | None,
        recomputed: float,
        cost_ratio: float | None = None,
        saved: float = 0.0,
    ) -> None:
        """Add an optimizer step: T_full of its shapes, wall seconds, and the FLOPs that were counted, if they were.

        cost_ratio: by the cost model, where it is not the span's; saved: FLOPs that the cache spared the step.
        """
        here = self.current
        if cost_ratio is None:
            cost_ratio = here.cost_ratio + here.saving
        self.spared += saved - here.saving * flops_full
        cost_ratio -= saved / flops_full
        here.steps += 1
        here.flops_full += flops_full
        here.flops_at_cost += cost_ratio * flops_full
        self.step_seconds += seconds
        if counted is not None:
            here.counted_cost_ratio = cost_ratio
            here.counted_ratio = counted / flops_full
            here.recomputed_ratio = recomputed / flops_full

    @property
    def step(self) -> int:
        """Optimizer steps done since the job's start."""
        return self.first + self.steps_done

    def ready_event(
        self,
        at: datetime,
        schedule: "Schedule",
        floor: float,
        points: Iterable[FrontierPoint],
        seconds_per_step: float | None,
        settings: tuple[SettingPoint, ...] = (),
        cooldown_from: int | None = None,
    ) -> SegmentReady:
        """The event that offers what is left of the segment.

        floor, points: the frontier without the importance batches, whose share is added here. cooldown_from: first step of the
        cooldown that has begun.
        """
        curve = (FrontierPoint(rho=p.rho + self.importance_share, importance=p.importance) for p in points)
        return SegmentReady(
            at=at,
            k=self.k,
            segments=None if schedule.is_open else max(schedule.segments, self.k + 1),
            first_step=self.step,
            steps=self.end - self.step,
            steps_left=None if schedule.is_open else schedule.steps - self.step,
            most_steps=schedule.most_steps,
            segment_steps=schedule.length if schedule.is_open else None,
            cooldown_from=cooldown_from,
            importance_batches=self.importance_batches,
            frontier=tuple(curve),
            flops_full=self.expected_full - self.flops_full,
            rho_floor=floor + self.importance_share,
            seconds_per_step=seconds_per_step,
            importance_seconds=self.importance_seconds,
            importance_error=self.importance_error,
            points=settings,
        )

    def step_event(
        self, at: datetime, schedule: "Schedule", loss: float | None, lr: float, seconds: float
    ) -> Step:
        """The event of the segment's last step. seconds: wall time of that step."""
        return Step(
            at=at,
            k=self.k,
            step=self.step,
            steps=None if schedule.is_open else schedule.steps,
            loss=loss,
            lr=lr,
            seconds=seconds,
            rho=self.rho_directed,
        )

    def move_end(self, end: int, full_ahead: float) -> None:
        """The job was given another end, which moves this segment's. full_ahead: T_full of the steps to come."""
        self.end, self.expected_full = end, self.flops_full + full_ahead
        self.importance_share = self.importance_flops / self.expected_full

    def cut(self) -> None:
        """Training ended in its midst: it ends with the last step that was done."""
        self.cut_from, self.end = self.steps, self.step

    def done_event(
        self,
        at: datetime,
        departure: str | None = None,
        waste: Waste | str = "not counted",
        **more: Any,
    ) -> SegmentDone:
        """The event that reports the finished segment. departure: what did not go as planned; waste: or why it is not known; more:
        further fields."""
        return SegmentDone(
            at=at,
            k=self.k,
            first_step=self.first,
            steps=self.steps,
            rho_directed=self.rho_directed,
            rho_planned=self.rho_planned,
            rho_realised=self.rho_realised,
            flops=self.flops,
            flops_full=self.flops_full,
            flops_own=None if self.own_ratio is None else self.own_ratio * self.flops_full,
            flops_recomputed=self.flops_recomputed,
            waste=None if isinstance(waste, str) else waste,
            waste_unknown=waste if isinstance(waste, str) else None,
            loss=self.loss,
            seconds=self.seconds,
            importance_seconds=self.importance_seconds,
            selection_seconds=self.selection_seconds,
            selected=self.current.selected,
            setting=None if self.setting is None else Setting.parse(self.setting),
            gradient_share=self.trained_tokens / self.tokens if self.tokens else None,
            directive_seq=self.directive_seq,
            departure=departure,
            **more,
        )

    def dump(self) -> dict[str, Any]:
        """As JSON, under the names that checkpoints have always had."""
        return {_IN_CHECKPOINT.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def load(cls, data: dict[str, Any]) -> "SegmentRecord":
        """What `dump` gave."""
        fields = {name: data[key] for name, key in _IN_CHECKPOINT.items()}
        rest = {key: value for key, value in data.items() if key not in _IN_CHECKPOINT.values()}
        fields["spans"] = [SelectionSpan(**{**s, "selected": tuple(s["selected"])}) for s in fields["spans"]]
        return cls(**rest, **fields)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a job's optimizer steps fall into segments.

    Example:
        >>> schedule = Schedule(steps=25, steps_per_epoch=25, length=10)
        >>> schedule.segments, schedule.bounds(step=24)
        (3, (2, 20, 25))
        >>> Schedule(steps=21, steps_per_epoch=21, length=10).bounds(step=20)
        (1, 10, 21)
    """

    steps: int
    steps_per_epoch: int
    length: int
    """Steps of a segment. What remains behind the last whole one is the last if it is half as long, else part of it: a
    directive, and a selection, for a step or two cost more than they bring."""
    is_open: bool = False
    """Whether `steps` is a bound alone, and how many there will be is decided while the job runs."""
    keeps_remainder: bool = False
    """Whether what remains behind the last whole segment is one by itself however short it is: where the end may still move."""
    most_steps: int | None = None
    """The bound of the job's owner, where that is decided so; None: none was given, or the steps are known."""

    def __post_init__(self) -> None:
        if self.segments > MOST_SEGMENTS:
            raise InputError(
                "train.segment",
                f"{self.length} steps make {self.segments} segments of this job",
                f"make it {-(-self.steps // MOST_SEGMENTS)} or more: at most {MOST_SEGMENTS} can be planned",
            )

    @classmethod
    def of(
        cls,
        rows: int,
        batch: int,
        accumulation: int,
        epochs: int | None,
        max_steps: int | None,
        segment: int | str,
        *,
        is_open: bool = False,
    ) -> "Schedule":
        """By transformers.Trainer's rule: an incomplete batch, and an incomplete accumulation, is a step too.

        epochs, max_steps: None: no bound, for a schedule that is open. is_open: they are bounds alone.
        """
        batches = -(-rows // batch)
        per_epoch = max(-(-batches // accumulation), 1)
        length = per_epoch if isinstance(segment, str) else segment
        steps = max_steps if max_steps is not None or epochs is None else epochs * per_epoch
        most = steps if is_open else None
        steps = steps or min(OPEN_STEPS, length * MOST_SEGMENTS)
        return cls(steps, per_epoch, length, is_open=is_open, keeps_remainder=is_open, most_steps=most)

    def __str__(self) -> str:
        if not self.is_open:
            return f"{self.steps} steps in {self.segments} segments"
        most = "" if self.most_steps is None else f", {self.most_steps} at most"
        return f"as many steps as its budget pays for{most}, in segments of {self.length}"

    @property
    def segments(self) -> int:
        whole, rest = divmod(self.steps, self.length)
        apart = rest > 0 if self.keeps_remainder else 2 * rest >= self.length
        return max(whole + apart, min(self.steps, 1))

    def bounds(self, step: int) -> tuple[int, int, int]:
        """(k, first, end) of the segment that optimizer step `step` (from 0) belongs to."""
        k = min(step // self.length, self.segments - 1)
        last = k == self.segments - 1
        return k, k * self.length, self.steps if last else (k + 1) * self.length

    def is_remainder(self, k: int) -> bool:
        """Whether segment k is a last one that is shorter than those before."""
        return k > 0 and self.steps - k * self.length < self.length


def rows_in(schedule: Schedule, first: int, end: int, rows: int, batch: int, accumulation: int) -> int:
    """Training rows that steps [first, end) read: the last step of an epoch may have fewer."""
    whole = batch * accumulation
    last = min(
        rows - (schedule.steps_per_epoch - 1) * whole, whole
    )  # less where the loader drops the last batch
    ends = end // schedule.steps_per_epoch - first // schedule.steps_per_epoch
    return (end - first - ends) * whole + ends * last

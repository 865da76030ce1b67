"""Defines the documents that daemon and trainer exchange through the job directory (docs/protocol.md).

`control.json` is written by the daemon: the directive for one segment. `events.jsonl` is appended by the trainer. The
shim that holds the trainer writes `run.json` and `exit.json`. Readers tell a torn last line of `events.jsonl` by its
missing newline and leave it for later.
"""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter

from carbonsched.model.base import MOST, Doc, JobFolderDoc, Line, Real, UtcTime, rfc3339
from carbonsched.model.setting import MOST_SETTINGS, Setting, SettingPoint

VERSION = 2
"""Protocol version. Version 1 has no `setting`, `clocks`, `phase` and `points`; a side that states none speaks version 1."""

Count = Annotated[int, Field(ge=0, le=2**53)]
"""Largest number that every JSON reader and every database counts exactly."""
Steps = Annotated[int, Field(ge=1, le=10**12)]
"""More would take centuries."""
MOST_SEGMENTS = 100_000
"""More cannot be planned one by one."""
MOST_FRONTIER_POINTS = 4096
"""Per segment: the trainer sends 200, and planning, which all jobs wait for, takes longer with each."""
Segments = Annotated[int, Field(ge=1, le=MOST_SEGMENTS)]
Amount = Annotated[float, Field(ge=0, le=MOST)]
Ratio = Annotated[float, Field(ge=0, le=1e6)]
Clocks = Annotated[int, Field(ge=1, le=10**5)]
"""MHz of a board's graphics clock."""


class FrontierPoint(JobFolderDoc):
    """The best total importance that a ratio ρ can reach.

    Example:
        >>> FrontierPoint(rho=0.6, importance=1.2).rho
        0.6
    """

    rho: Ratio
    importance: Real


def _ascending(points: tuple[FrontierPoint, ...]) -> tuple[FrontierPoint, ...]:
    if any(b.rho < a.rho for a, b in pairwise(points)):
        raise ValueError("must ascend in rho")
    return points


class Lease(JobFolderDoc):
    """How long a directive holds; when it lapses unanswered the trainer checkpoints and waits.

    Example:
        >>> Lease(valid_until="2026-11-22T10:05:00Z", max_steps=40).max_steps
        40
    """

    valid_until: UtcTime
    max_steps: Annotated[int, Field(ge=0)]
    """Optimizer steps that may be started under this directive, counted from when it is first read."""


OPENING = -1
"""`k` of the directive written at a start: it answers no segment; its lease and ρ hold if nobody answers."""


class Directive1(JobFolderDoc):
    """`control.json` for a trainer of protocol version 1, which accepts no further key.

    Example:
        >>> lease = Lease(valid_until="2026-11-22T10:05:00Z", max_steps=40)
        >>> Directive1(seq=1, k=0, action="train", rho=0.6, lease=lease, reason="rho 0.600 at 200 g/kWh").checkpoint
        False
    """

    seq: int
    """Rises by one with every rewrite; the trainer acts on a number once."""
    k: int
    """Segment, from 0; -1: the lease of a start."""
    action: Literal["train", "wait", "stop"]
    rho: float | None = None
    until: UtcTime | None = None
    lease: Lease
    price: float | None = None
    """λ, importance per gram; None without a plan."""
    reason: str
    checkpoint: bool = False
    """In mid-segment: write a checkpoint at the next step boundary."""


class Directive(Directive1):
    """`control.json`.

    Example:
        >>> lease = Lease(valid_until="2026-11-22T10:05:00Z", max_steps=40)
        >>> go = Directive(seq=1, k=0, action="train", rho=0.6, lease=lease, reason="rho 0.600 at 200 g/kWh")
        >>> Directive.parse(go.dump()) == go
        True
    """

    protocol: Count = 1
    """The daemon's protocol version."""
    setting: Setting | None = None
    """How the segment trains at `rho`; None: as the job's own method does."""
    clocks: Clocks | None = None
    """The clock to which the daemon has locked the board; None: not locked."""
    phase: Literal["stable", "cooldown"] | None = None
    """Where `train.scheduler` is `budget`: hold the learning rate, or lower it to 0 over `cooldown_steps`; None: another scheduler."""
    cooldown_steps: Steps | None = None
    """Optimizer steps from the first of the cooldown to the job's last; set where `phase` is `cooldown`."""
    cooldown_from: Count | None = None
    """Steps of the job before the first of the cooldown; None: it begins with the next step. A cooldown that has begun is not undone: only
    its end may move."""

    def spoken(self, protocol: int) -> Directive1:
        """The directive as a trainer of version `protocol` reads it."""
        return self if protocol >= VERSION else Directive1.model_validate(self.dump())


class _Event(JobFolderDoc):
    at: UtcTime


class Started(_Event):
    """A trainer process has loaded the model.

    Example:
        >>> Started(at="2026-11-22T10:00:00Z", pid=7, segments=5, steps=120, params=135_000_000, device="cuda:0").first_step
        0
    """

    event: Literal["started"] = "started"
    pid: Count
    segments: Segments | None
    steps: Steps | None
    """Optimizer steps of the whole job. None, as `segments`: the daemon decides while it runs (`train.scheduler` is `budget`)."""
    most_steps: Steps | None = None
    """Most steps of the job, where the daemon decides and its owner gave a bound."""
    first_step: Count = 0
    """Steps already done, by the checkpoint that was loaded."""
    test_rows: Count = 0
    """Evaluated once, after training."""
    params: Count
    device: Line
    gpu_uuid: Line | None = None
    """NVML's name for the device, where the job is on one."""
    versions: dict[Line, Line] = {}
    protocol: Count = 1
    """The trainer's protocol version."""


class Evaluated(_Event):
    """The loss and metrics of held-out rows.

    Example:
        >>> Evaluated(at="2026-11-22T10:00:00Z", when="after", step=120, loss=2.41, samples=64, tokens=900, seconds=1.5).event
        'evaluated'
    """

    event: Literal["evaluated"] = "evaluated"
    when: Literal["before", "segment", "after", "test"]
    """`segment`: at the end of one; `test`: after training, on the test rows."""
    step: Count
    loss: Real
    """Mean negative log-likelihood per target token, natural log."""
    samples: Count
    tokens: Count
    seconds: Amount
    metrics: dict[Line, Real] = {}


class SegmentReady(_Event):
    """A segment waits for its directive: what it can gain at which ρ, and what it costs.

    Example:
        >>> ready = SegmentReady(at="2026-11-22T10:00:00Z", k=0, segments=1, first_step=0, steps=10, steps_left=10,
        ...     importance_batches=1, frontier=[FrontierPoint(rho=1.0, importance=2.0)], flops_full=1e15, rho_floor=0.4)
        >>> ready.frontier[-1].importance
        2.0
    """

    event: Literal["segment_ready"] = "segment_ready"
    k: Count
    segments: Segments | None
    first_step: Count
    steps: Steps
    """Optimizer steps in this segment."""
    steps_left: Steps | None
    """Optimizer steps of the job from here to its end, this segment's included. None, as `segments`: the daemon decides."""
    most_steps: Steps | None = None
    """Most steps of the job, where the daemon decides and its owner gave a bound."""
    segment_steps: Steps | None = None
    """Optimizer steps of a later segment, where the daemon decides how many there are."""
    cooldown_from: Count | None = None
    """Steps of the job before the cooldown that has begun; None: none has."""
    importance_batches: Count
    frontier: Annotated[
        tuple[FrontierPoint, ...],
        Field(min_length=1, max_length=MOST_FRONTIER_POINTS),
        AfterValidator(_ascending),
    ]
    """ρ here is planned ρ: what the importance batches cost is in it."""
    flops_full: Amount
    """FLOPs of this segment at full fine-tuning."""
    rho_floor: Ratio
    seconds_per_step: Amount | None = None
    """Of a step at ρ = 1: measured or, before any, taken from the importance pass; None if unknown."""
    importance_seconds: Amount = 0.0
    importance_error: Real | None = None
    """Median over tensors of an importance's standard error ÷ its size; None: one batch, or none, has no spread."""
    points: Annotated[tuple[SettingPoint, ...], Field(max_length=MOST_SETTINGS)] = ()
    """Settings that the trainer can change to for this segment; none: its own method at the ρ of `frontier` alone."""


class Step(_Event):
    """An optimizer step was taken; written at most once per second.

    Example:
        >>> Step(at="2026-11-22T10:00:00Z", k=0, step=3, steps=120, loss=2.9, lr=2e-5, seconds=0.8, rho=0.6).loss
        2.9
    """

    event: Literal["step"] = "step"
    k: Count
    step: Count
    """Optimizer steps done since the job's start."""
    steps: Count | None
    """Of the whole job; None: not decided yet."""
    loss: Real | None
    lr: Real
    seconds: Amount
    """Wall seconds of the last step."""
    rho: Ratio


class Waste(Doc):
    """What a stock Trainer would have computed beyond `flops_full` on a segment's rows: the waste effect (docs/reports.md).

    Stock: batches in random order, each padded to its longest row, logits for every token, everything trained, in the same
    precision. `stock_flops` − `padding_flops` − `head_flops` is the segment's `flops_full`.

    Example:
        >>> waste = Waste(stock_flops=100.0, padding_flops=25.0, head_flops=15.0)
        >>> waste.flops, waste.estimated
        (60.0, False)
    """

    stock_flops: Amount
    padding_flops: Real
    """By how much less the batches that ran are padded; negative: more."""
    head_flops: Amount
    """FLOPs saved by running the output embeddings on labelled tokens alone."""
    orders: Count = 0
    """Random orders of the same rows that `stock_flops` is the mean of; 0: its batches are those that ran, so nothing is drawn."""
    spread_flops: Amount = 0.0
    """Standard deviation of `stock_flops` from one such order to another."""

    @property
    def flops(self) -> float:
        """The rest: `flops_full` of the same segment."""
        return self.stock_flops - self.padding_flops - self.head_flops

    @property
    def estimated(self) -> bool:
        """Whether it rests on orders that were drawn."""
        return self.orders > 0

    @classmethod
    def total(cls, parts: Iterable["Waste | None"]) -> "Waste | None":
        """The sum over several segments; None if there is none, or one of them is unknown."""
        found = list(parts)
        known = [waste for waste in found if waste is not None]
        if not known or len(known) < len(found):
            return None
        return cls(
            stock_flops=sum(w.stock_flops for w in known),
            padding_flops=sum(w.padding_flops for w in known),
            head_flops=sum(w.head_flops for w in known),
            orders=max(w.orders for w in known),
            spread_flops=math.hypot(*(w.spread_flops for w in known)),
        )


class SegmentDone(_Event):
    """A segment was trained: ρ as directed, planned and realised, and what it took.

    Example:
        >>> done = SegmentDone(at="2026-11-22T10:00:00Z", k=0, first_step=0, steps=10, rho_directed=0.6, rho_planned=0.597,
        ...     rho_realised=0.595, flops=5.95e14, flops_full=1e15, loss=2.9, seconds=8.0, importance_seconds=0.5,
        ...     selection_seconds=0.1, selected=["lm_head.weight"], directive_seq=1)
        >>> done.flops / done.flops_full
        0.595
    """

    event: Literal["segment_done"] = "segment_done"
    k: Count
    segments: Segments | None = None
    """Of the whole job, as `segment_ready` has it; None: the daemon decides, or not told."""
    first_step: Count
    steps: Steps
    rho_directed: Ratio
    rho_planned: Ratio
    rho_realised: Ratio
    flops: Amount
    """Counted: importance batches + steps, on true batch shapes. Model FLOPs; evaluation and recomputation are outside."""
    flops_full: Amount
    flops_own: Amount | None = None
    """Of the same steps with everything trained that their user left trainable, so as they would have run without us: less
    than `flops_full` where weights are frozen or adapters trained. By the profile; None: not told."""
    flops_recomputed: Amount = 0.0
    waste: Waste | None = None
    """None: not known, `waste_unknown` says why."""
    waste_unknown: Line | None = None
    loss: Real | None
    """Mean training loss over the segment's steps."""
    seconds: Amount
    """Importance, selection and steps; checkpoint and evaluation apart."""
    importance_seconds: Amount
    selection_seconds: Amount
    selected: tuple[Line, ...]
    setting: Setting | None = None
    """As directed; None: as the job's own method trains."""
    gradient_share: Ratio | None = None
    """τ as it was: tokens that gradient flowed through ÷ real tokens of the steps; None: all, or not counted."""
    directive_seq: Count | None
    """None: no directive came, `rho_start` was used."""
    phase: Literal["stable", "cooldown"] | None = None
    """Of its last step, where `train.scheduler` is `budget`."""
    last: bool = False
    """Whether the job has no further one, where the daemon decides how many there are."""
    departure: str | None = None
    """What did not go as planned, with its likely cause: realised ρ more than 0.02 off, gradients that are not the selection's."""

    @property
    def rho_own(self) -> float | None:
        """FLOPs ÷ those of its user's own run; None: not known."""
        return self.flops / self.flops_own if self.flops_own else None


class Checkpoint(_Event):
    """Everything that a later process needs to resume is on disk.

    Example:
        >>> Checkpoint(at="2026-11-22T10:00:00Z", k=0, step=10, path="checkpoints/10", seconds=0.4, bytes=2**20).path
        'checkpoints/10'
    """

    event: Literal["checkpoint"] = "checkpoint"
    k: Count
    step: Count
    path: Line
    """Relative to the job directory."""
    seconds: Amount
    bytes: Count


class Waiting(_Event):
    """The trainer waits, with the model in memory or before it exits.

    Example:
        >>> Waiting(at="2026-11-22T10:00:00Z", k=1, step=10, until=None, reason="its lease lapsed").until is None
        True
    """

    event: Literal["waiting"] = "waiting"
    k: Count
    step: Count
    until: UtcTime | None
    reason: Line


class Resumed(_Event):
    """The trainer goes on after a wait.

    Example:
        >>> Resumed(at="2026-11-22T10:00:00Z", k=1, step=10).event
        'resumed'
    """

    event: Literal["resumed"] = "resumed"
    k: Count
    step: Count


class Warned(_Event):
    """Something that a person should know; training goes on.

    Example:
        >>> Warned(at="2026-11-22T10:00:00Z", message="no test rows").event
        'warning'
    """

    event: Literal["warning"] = "warning"
    message: Line


class Finished(_Event):
    """The trainer ended by itself: the job is done, or it was stopped with a checkpoint.

    Example:
        >>> Finished(at="2026-11-22T10:00:00Z", step=120, output="output").reason
        'done'
    """

    event: Literal["finished"] = "finished"
    step: Count
    reason: Literal["done", "stopped"] = "done"
    """`stopped`: on a directive or a signal, with a checkpoint."""
    early: Line | None = None
    """Why a finished job took fewer steps than it announced; None: it took them all."""
    output: Line | None = None
    peak_memory_bytes: Count | None = None


class Failed(_Event):
    """The trainer ended by an error.

    Example:
        >>> Failed(at="2026-11-22T10:00:00Z", error="CUDA out of memory").event
        'failed'
    """

    event: Literal["failed"] = "failed"
    error: Line


Event = Annotated[
    Started
    | Evaluated
    | SegmentReady
    | Step
    | SegmentDone
    | Checkpoint
    | Waiting
    | Resumed
    | Warned
    | Finished
    | Failed,
    Field(discriminator="event"),
]
EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


class RunRecord(Doc):
    """`run.json`: the process that runs the job. A pid alone can be reused, but not with its start time and boot.

    Example:
        >>> RunRecord(pid=7, start_time=912, boot_id="b", started_at="2026-11-22T10:00:00Z", argv=["python"]).pid
        7
    """

    pid: int
    """Of the shim; the trainer is its child, in the same session."""
    start_time: int
    """Field 22 of /proc/PID/stat, clock ticks since boot."""
    boot_id: str
    started_at: UtcTime
    argv: tuple[str, ...]
    held: bool = True
    """Whether a shim holds it; False: `pid` is the command's own, which `carbonsched run` started."""
    locked: bool = False
    """Such a command is alive as long as somebody holds the lock `alive.lock` in its folder, because its processes are hidden from the daemon."""

    @property
    def identity(self) -> str:
        """Identifies this process among all there ever were."""
        return f"{self.boot_id} {self.pid} {self.start_time} {rfc3339(self.started_at)}"


class ExitRecord(Doc):
    """`exit.json`: how the job's process ended, fsynced by the shim.

    Example:
        >>> ExitRecord(code=None, signal=9, at="2026-11-22T10:00:00Z").signal
        9
    """

    code: int | None
    signal: int | None
    at: UtcTime
    detail: dict[str, Any] = {}

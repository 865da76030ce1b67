"""What daemon and trainer say to each other through the job directory (DESIGN 2).

`control.json` is written by the daemon: the directive for one segment. `events.jsonl` is appended by the trainer. The
shim that holds the trainer writes `run.json` and `exit.json`. Readers tell a torn last line of `events.jsonl` by its
missing newline and leave it for later.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from carbonsched.model.base import Doc, UtcTime


class FrontierPoint(Doc):
    rho: float
    importance: float


class Frontier(Doc):
    """FRONTIER.json: best total importance for every ρ, a non-decreasing curve."""

    frontier: tuple[FrontierPoint, ...]


class Lease(Doc):
    """How long a directive holds; when it lapses unanswered the trainer checkpoints and waits."""

    valid_until: UtcTime
    max_steps: Annotated[int, Field(ge=0)]
    """Optimizer steps that may be started under this directive, counted from its first sight."""


class Directive(Doc):
    """`control.json`."""

    seq: int
    """Rises by one with every rewrite; the trainer acts on a number once."""
    k: int
    """Segment, from 0."""
    action: Literal["train", "wait", "stop"]
    rho: float | None = None
    until: UtcTime | None = None
    lease: Lease
    price: float | None = None
    """λ, importance per gram; None without a plan."""
    reason: str
    checkpoint: bool = False
    """In mid-segment: write a checkpoint at the next step boundary."""


class _Event(Doc):
    at: UtcTime


class Started(_Event):
    event: Literal["started"] = "started"
    pid: int
    segments: int
    steps: int
    """Optimizer steps of the whole job."""
    first_step: int = 0
    """Steps already done, by the checkpoint that was loaded."""
    test_rows: int = 0
    """Looked at once, after training."""
    params: int
    device: str
    gpu_uuid: str | None = None
    """NVML's name for the board, where the job is on one."""
    versions: dict[str, str] = {}


class Evaluated(_Event):
    event: Literal["evaluated"] = "evaluated"
    when: Literal["before", "segment", "after", "test"]
    """`segment`: at the end of one; `test`: after training, on the test rows."""
    step: int
    loss: float
    """Mean negative log-likelihood a target token, natural log."""
    samples: int
    tokens: int
    seconds: float
    metrics: dict[str, float] = {}


class SegmentReady(_Event):
    event: Literal["segment_ready"] = "segment_ready"
    k: int
    segments: int
    first_step: int
    steps: int
    """Optimizer steps in this segment."""
    steps_left: int
    """Optimizer steps of the job from here to its end, this segment's included."""
    importance_batches: int
    frontier: tuple[FrontierPoint, ...]
    """ρ here is planned ρ: what the importance batches cost is in it."""
    flops_full: float
    """FLOPs of this segment at full fine-tuning."""
    rho_floor: float
    seconds_per_step: float | None = None
    """Of a step at ρ = 1: measured or, before any, taken from the importance pass; None if unknown."""
    importance_seconds: float = 0.0
    importance_error: float | None = None
    """Median over tensors of an importance's standard error ÷ its size; None: one batch, or none, has no spread."""


class Step(_Event):
    event: Literal["step"] = "step"
    k: int
    step: int
    """Optimizer steps done since the job's start."""
    steps: int
    loss: float | None
    lr: float
    seconds: float
    """Wall seconds of the last step."""
    rho: float


class SegmentDone(_Event):
    event: Literal["segment_done"] = "segment_done"
    k: int
    first_step: int
    steps: int
    rho_directed: float
    rho_planned: float
    rho_realised: float
    flops: float
    """Counted: importance batches + steps, on true batch shapes. Model FLOPs; evaluation and recomputation are outside."""
    flops_full: float
    flops_recomputed: float = 0.0
    loss: float | None
    """Mean training loss over the segment's steps."""
    seconds: float
    """Importance, selection and steps; checkpoint and evaluation apart."""
    importance_seconds: float
    selection_seconds: float
    selected: tuple[str, ...]
    directive_seq: int | None
    """None: no directive came, `rho_start` was used."""


class Checkpoint(_Event):
    event: Literal["checkpoint"] = "checkpoint"
    k: int
    step: int
    path: str
    """Relative to the job directory."""
    seconds: float
    bytes: int


class Waiting(_Event):
    event: Literal["waiting"] = "waiting"
    k: int
    step: int
    until: UtcTime | None
    reason: str


class Resumed(_Event):
    event: Literal["resumed"] = "resumed"
    k: int
    step: int


class Warned(_Event):
    event: Literal["warning"] = "warning"
    message: str


class Finished(_Event):
    event: Literal["finished"] = "finished"
    step: int
    reason: Literal["done", "stopped"] = "done"
    """`stopped`: on a directive or a signal, with a checkpoint."""
    early: str | None = None
    """Why a job that is done took fewer steps than it said; None: it took them all."""
    output: str | None = None
    peak_memory_bytes: int | None = None


class Failed(_Event):
    event: Literal["failed"] = "failed"
    error: str


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
    """`run.json`: which process runs the job; a pid alone can be reused, its start time and boot cannot."""

    pid: int
    """Of the shim; the trainer is its child, in the same session."""
    start_time: int
    """Field 22 of /proc/PID/stat, clock ticks since boot."""
    boot_id: str
    started_at: UtcTime
    argv: tuple[str, ...]


class ExitRecord(Doc):
    """`exit.json`: how the job's process ended, fsynced by the shim."""

    code: int | None
    signal: int | None
    at: UtcTime
    detail: dict[str, Any] = {}

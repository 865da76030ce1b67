"""A job: what its owner submits (JOB.toml), and the states it goes through."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from carbonsched.errors import StateError
from carbonsched.model.base import Doc, Seconds, UtcTime

Share = Annotated[float, Field(gt=0, le=1)]
Method = Literal[
    "full", "ft-top2", "lora", "prefix", "dropbp", "greentrainer", "greentrainer+lora", "fixed", "random"
]


class ModelPart(Doc):
    name_or_path: str
    """Hub id or local folder; a relative path is read from the folder of JOB.toml."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Load dtype, always explicit: an fp16 checkpoint is not silently trained in pure fp16."""
    attn: Literal["eager", "sdpa"] = "eager"
    """Attention implementation; sdpa's backward costs 2.5× its forward, eager's 2×."""


class DataPart(Doc):
    name_or_path: str
    """Hub id, folder or file (.jsonl, .json, .csv, .parquet, .txt)."""
    task: Literal["summarization", "qa", "causal"] = "summarization"
    source: str = "source"
    target: str = "target"
    validation: str | None = None
    """File or split held out for the loss before and after; None: the folder's dev/validation file or split."""
    validation_limit: Annotated[int, Field(ge=1)] = 64
    train_limit: Annotated[int, Field(ge=1)] | None = None
    max_length: Annotated[int, Field(ge=8)] = 512
    """Tokens a row at most: source + target for decoders, source alone for encoder-decoders."""
    target_length: Annotated[int, Field(ge=1)] = 128
    pad: Literal["longest", "max_length"] = "longest"


class TrainPart(Doc):
    method: Method = "greentrainer"
    epochs: Annotated[int, Field(ge=1)] = 1
    max_steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 4
    gradient_accumulation: Annotated[int, Field(ge=1)] = 1
    gradient_checkpointing: bool = False
    lr: Annotated[float, Field(gt=0)] = 2e-5
    scheduler: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """0 switches clipping off."""
    segment: Literal["epoch"] | Annotated[int, Field(ge=1)] = "epoch"
    """What lies between two selections: an epoch, or this many optimizer steps."""
    importance_batches: Annotated[int, Field(ge=1)] = 1
    seed: int = 0
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads for torch; None: as many as the machine has cores."""


class CarbonPart(Doc):
    budget_g: Annotated[float, Field(gt=0)] | None = None
    """Grams CO2e the job may emit."""
    budget_share: Share | None = None
    """The budget as a share of what full fine-tuning would emit at the mean intensity, fixed at the first segment."""
    deadline: Seconds | None = None
    """Seconds after submission; written `36h`."""
    rho_min: Share | None = None
    """None: the model's floor."""
    rho_max: Share = 1.0
    rho_start: Share = 0.6
    """ρ of the first segment where the daemon does not answer within 30 s."""
    may_pause: bool = True

    @field_validator("deadline")
    @classmethod
    def _future(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError("must lie after submission; write a duration such as 36h")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.budget_g is None) == (self.budget_share is None):
            raise ValueError("give exactly one of budget_g and budget_share, e.g. budget_g = 120.0")
        if self.rho_min is not None and self.rho_min > self.rho_max:
            raise ValueError(f"rho_min {self.rho_min} is above rho_max {self.rho_max}; swap or widen them")
        return self


class JobSpec(Doc):
    """JOB.toml, as its owner wrote it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    model: ModelPart
    data: DataPart
    train: TrainPart = TrainPart()
    carbon: CarbonPart


class Owner(Doc):
    uid: int
    gid: int
    pid: int | None = None
    user: str


class SubmittedJob(Doc):
    """`spec.json`: the job as accepted, immutable from then on."""

    id: str
    spec: JobSpec
    owner: Owner
    submitted_at: UtcTime
    sha256: str
    """Of the canonical JSON of `spec`."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    """Told to wait for a cleaner hour."""
    PAUSED = "paused"
    """By its owner."""
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    """On budget: what is left cannot pay for the rest; a checkpoint is kept."""

    @property
    def live(self) -> bool:
        """Whether a trainer process belongs to this state."""
        return self in (JobState.RUNNING, JobState.WAITING)

    @property
    def ended(self) -> bool:
        return self in (JobState.FINISHED, JobState.FAILED, JobState.CANCELLED, JobState.STOPPED)


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {
            JobState.RUNNING,
            JobState.WAITING,
            JobState.PAUSED,
            JobState.CANCELLED,
            JobState.FAILED,
            JobState.STOPPED,
        }
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.WAITING,
            JobState.PAUSED,
            JobState.FINISHED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.STOPPED,
        }
    ),
    JobState.WAITING: frozenset(
        {
            JobState.RUNNING,
            JobState.QUEUED,
            JobState.PAUSED,
            JobState.FINISHED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.STOPPED,
        }
    ),
    JobState.PAUSED: frozenset({JobState.QUEUED, JobState.CANCELLED, JobState.FAILED}),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.STOPPED: frozenset({JobState.QUEUED}),
    JobState.FINISHED: frozenset(),
    JobState.CANCELLED: frozenset(),
}
"""The one table of allowed moves; `resume` is the way out of paused, failed and stopped."""


def move(job_id: str, old: JobState, new: JobState) -> JobState:
    """`new`, if the table allows it. Raises StateError that names what is possible."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(TRANSITIONS[old])) or "nothing: it has ended"
        raise StateError(f"job {job_id} is {old}, it cannot become {new}; possible from here: {allowed}")
    return new

"""JobSpec is what the owner of a job submits (JOB.toml); SubmittedJob is the same as the daemon accepted it (spec.json).

Every rule between settings that can be checked without torch stands here, so that a job which breaks one is refused at
submit, before the trainer starts.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from carbonsched.model import allowed_hours as hours
from carbonsched.model.base import MOST, Doc, Grams, Seconds, UtcTime, refusal
from carbonsched.model.job_conflicts import method_conflict, open_end_conflict
from carbonsched.model.labels import Labels
from carbonsched.model.methods.learning_rate import LearningRateSettings
from carbonsched.model.methods.lora import LoraSettings
from carbonsched.model.methods.prefix import PrefixSettings
from carbonsched.model.methods.selection import SelectionSettings
from carbonsched.model.methods.tokens import TokensSettings
from carbonsched.model.methods.traits import METHODS, method_names, unknown_method
from carbonsched.model.notification import Happening
from carbonsched.model.queue_settings import QueuePart

DATA_SUFFIXES: Final = (".jsonl", ".json", ".csv", ".parquet", ".arrow", ".txt")
"""Endings of the files that rows are read from; .gz or .zst may follow those of text."""
COMPRESSED: Final = (".gz", ".zst")
MOST_INT: Final = 2**53
"""As far as every JSON reader and every database counts exactly."""
_MOST_DEADLINE_S = 3653 * 86_400.0
Share = Annotated[float, Field(gt=0, le=1)]

ACCEPTED: Final = {"accepted": True}
"""Validation context for a job that was accepted before: it stays readable when the plugin of its method is gone."""


def _known_method(name: str, info: ValidationInfo) -> str:
    if name in METHODS or (info.context or {}).get("accepted"):
        return name
    if name not in method_names():
        raise refusal("", *unknown_method(name))
    return name


Method = Annotated[
    str,
    AfterValidator(_known_method),
    WithJsonSchema({"anyOf": [{"enum": list(METHODS)}, {"type": "string"}]}),
]
"""A built-in method, or one that an installed plugin adds under `carbonsched.methods`."""


def _written(name: str) -> str:
    if not name.strip():  # as a path it would be the folder that the file lies in
        raise refusal("", "is empty", "give a hub id, a folder or a file")
    return name


NotBlank = Annotated[str, AfterValidator(_written)]


class ModelPart(Doc):
    """`[model]`: which model, and how it is loaded.

    Example:
        >>> ModelPart(name_or_path="tiny").dtype
        'fp32'
    """

    name_or_path: NotBlank
    """Hub id or local folder; a relative path is read from the folder of JOB.toml."""
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Load dtype, always explicit: an fp16 checkpoint is not silently trained in pure fp16."""
    attn: Literal["eager", "sdpa"] = "eager"
    """Attention implementation; sdpa's backward costs 2.5× its forward, eager's 2×."""


DataFormat = Literal["fields", "chat", "prompt-completion", "instruction", "dialogue", "choice", "questions"]
"""How a row's fields are read: docs/configuration.md has the table."""


class DataPart(Doc):
    """`[data]`: which rows, and which of their fields are read and learnt.

    Example:
        >>> DataPart(name_or_path="pairs.jsonl").source
        'source'
    """

    name_or_path: NotBlank
    """Hub id, folder or file (.jsonl, .json, .csv, .parquet, .arrow, .txt; text as .gz or .zst, too)."""
    subset: str | None = None
    """Configuration of a data set on the hub that has several."""
    task: Literal["summarization", "qa", "causal"] | None = None
    """What stands around the source; None: qa for a known question answering data set, else summarization."""
    format: DataFormat | None = None
    """How fields are read; None: recognised by their names. fields: by data.source and data.target; chat: turns of role and content."""
    source: str = "source"
    target: str = "target"
    """A list in this field holds several references: the first is learnt, all count as right."""
    validation: str | None = None
    """File or split held out for the loss before and after; None: the folder's dev/validation files or split, never test."""
    validation_limit: Annotated[int, Field(ge=1, le=MOST_INT)] = 64
    train_limit: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    max_length: Annotated[int, Field(ge=8, le=MOST_INT)] = 512
    """Tokens per row at most: source + target for decoders, source alone for encoder-decoders."""
    target_length: Annotated[int, Field(ge=1, le=MOST_INT)] = 128
    pad: Literal["longest", "max_length"] = "longest"
    pack: bool = False
    """Causal text for decoders: join all rows, a .txt file whole, and cut them into blocks of max_length tokens."""


class TrainPart(LearningRateSettings, SelectionSettings, LoraSettings, PrefixSettings, TokensSettings):
    """How the model is trained. A method's own keys stand with it, in carbonsched/model/methods.

    Example:
        >>> TrainPart(method="lora", lr=2e-4).epochs
        1
    """

    method: Method = "auto"
    epochs: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    """None: 1; with scheduler = 'budget' as many as the budget pays for."""
    max_steps: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=MOST_INT)] = 4
    gradient_accumulation: Annotated[int, Field(ge=1, le=MOST_INT)] = 1
    gradient_checkpointing: bool = False
    scheduler: Literal["linear", "cosine", "constant", "budget"] = "linear"
    """budget: warm-up, stable, cooldown; the daemon decides when it cools down, so that the job ends annealed inside its grams and
    its deadline. `max_steps` and `epochs` are bounds then, and need not be given."""
    cooldown: Annotated[float, Field(ge=0.02, le=0.9)] = 0.2
    """Share of all steps in which scheduler 'budget' lowers the learning rate to 0."""
    warmup_steps: Annotated[int, Field(ge=0, le=MOST_INT)] = 0
    weight_decay: Annotated[float, Field(ge=0, le=MOST)] = 0.01
    optimizer: Literal["adamw", "sgd", "adafactor"] = "adamw"
    """adafactor: transformers', at `lr` (no relative steps, no scaling by the weights' size)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Of sgd; the others have none to set."""
    max_grad_norm: Annotated[float, Field(ge=0, le=MOST)] = 1.0
    """0 switches clipping off."""
    segment: Literal["epoch"] | Annotated[int, Field(ge=1, le=MOST_INT)] = "epoch"
    """What lies between two selections: an epoch, or this many optimizer steps."""
    autocast: Literal["auto", "bf16", "off"] | None = "auto"
    """Mixed precision: matrix products in bf16 over weights and optimizer state of `model.dtype` (torch.autocast). auto: of fp32 weights on
    boards that have bf16; never on a CPU."""
    evaluate_each_segment: bool = False
    """Measure the held-out loss at the end of each segment, too."""
    early_stop_patience: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    """End when so many segments in a row brought no lower held-out loss, and keep the best model; None: off."""
    stale_state: Literal["keep", "drop", "offload"] = "keep"
    """What becomes of a tensor's optimizer state while it is not trained; offload: it waits in host memory."""
    cache: Literal["off", "memory", "disk"] = "off"
    """Keep each row's activations under the deepest trained block, so that later epochs do not compute them again."""
    cache_gb: Annotated[float, Field(gt=0, le=1e9)] = 4.0
    """Most gigabytes (10⁹ bytes) that the cache may take."""
    group_by_length: bool = True
    """Put rows of like length into one batch, in an order drawn anew each epoch, so that little is padded."""
    labelled_head: bool = True
    """Run the output embeddings on labelled tokens alone: the same loss and gradients for fewer FLOPs."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    keep_checkpoints: Annotated[int, Field(ge=1, le=MOST_INT)] = 2
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    """CPU threads for torch; None: as many as the machine has cores."""
    device: Literal["auto", "cpu"] = "auto"
    """auto: a board if the box has one. cpu: the CPU; the job takes no board, and of the daemon one of `launch.cpu_slots`."""
    parallel: Literal["none", "ddp", "fsdp2"] = "none"
    """How several processes share the work: whole copies of the model, or a piece of it each."""
    processes: Annotated[int, Field(ge=2, le=64)] | None = None
    """How many there are, each on a board of its own, or all on the CPU of a box without boards. None: torchrun, started by hand, says it."""
    compile: bool = False
    """torch.compile, anew at each selection."""

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("scheduler") != "budget" and given.get("epochs") is None:
            return {**given, "epochs": 1}
        return given

    @property
    def bounded(self) -> bool:
        """Whether its owner says how many steps there are at most."""
        return self.max_steps is not None or self.epochs is not None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.scheduler == "budget" and self.early_stop_patience is not None:
            raise refusal(
                "early_stop_patience",
                "would end a job of scheduler 'budget' before its cooldown",
                "leave one of them out",
            )
        if self.importance == "noise" and self.batch_size * self.importance_batches < 3:
            raise refusal(
                "importance", "'noise' takes a spread from 3 rows", "set importance_batches = 3 or more"
            )
        if self.compile and self.cache != "off":
            raise refusal("cache", "does not go with compile = true", "leave one of them out")
        if self.processes is not None and self.parallel == "none":
            raise refusal("processes", "share no work with parallel = 'none'", "set it to 'ddp' or 'fsdp2'")
        if self.parallel == "fsdp2":
            for field, asked in (
                ("device", self.device == "cpu"),
                ("compile", self.compile),
                ("early_stop_patience", self.early_stop_patience is not None),
                ("cache", self.cache != "off"),
                ("stale_state", self.stale_state != "keep"),
            ):
                if asked:
                    raise refusal(
                        field, "cannot be had with parallel = 'fsdp2'", "change it, or set parallel = 'ddp'"
                    )
        return self


Metric = Literal["nll", "rouge", "exact_match", "f1"]


class EvaluatePart(Doc):
    """What is measured on held-out rows beside the loss; all but `nll` generate text, which takes time and energy.

    Example:
        >>> EvaluatePart(metrics=("nll", "rouge")).metrics
        ('nll', 'rouge')
    """

    metrics: tuple[Metric, ...] = ("nll",)
    """`nll` is always there, with its perplexity; exact_match and f1 are SQuAD's. All but `nll` are in percent."""
    test: str | None = None
    """File or split that is looked at once, after training, and reported apart from the validation rows."""
    limit: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    """Rows at most of the test set, and of the validation rows that text is generated for; None: all."""
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    """Of a generated text; None: data.target_length."""
    num_beams: Annotated[int, Field(ge=1, le=MOST_INT)] = 1
    """1: greedy."""
    batch_size: Annotated[int, Field(ge=1, le=MOST_INT)] | None = None
    """None: train.batch_size."""
    stemmer: bool = False
    """ROUGE over Porter stems; the GreenTrainer paper's code counts whole words."""
    predictions: bool = False
    """Write output/predictions.jsonl: source, prediction, references, nll and tokens of each row."""

    @property
    def generates(self) -> bool:
        return any(metric != "nll" for metric in self.metrics)


class CarbonPart(Doc):
    """`[carbon]`: what the job may emit, by when, and within which bounds of ρ.

    Example:
        >>> CarbonPart(budget_g=120.0, deadline="36h").deadline
        129600.0
    """

    budget_g: Grams | None = None
    """Grams CO2e the job may emit."""
    budget_share: Share | None = None
    """The budget as a share of what full fine-tuning would emit at the mean intensity, fixed at the first segment."""
    budget_rate_g_per_h: Grams | None = None
    """Grams per hour by which the budget grows from the job's start on, for endless jobs; a day's worth is saved at most."""
    pool: Annotated[str, Field(min_length=1)] | None = None
    """A pool of the daemon's config that the job draws on together with others, instead of a budget of its own."""
    weight: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """What the whole job's gain counts against that of the pool's other jobs."""
    objective: Literal["max-gain", "min-carbon", "meter"] = "max-gain"
    """max-gain: the most gain for the budget. min-carbon: the fewest grams for `rho_mean` by the deadline. meter: of `carbonsched run`
    without a budget, which is counted alone."""
    rho_mean: Share | None = None
    """Wanted mean ρ over all steps, for min-carbon."""
    allowed_hours: hours.HourSpans = ()
    """Spans of the day in which the job may train, e.g. `22:00-06:00`; none: any hour."""
    timezone: hours.ZoneName = "UTC"
    """Of `allowed_hours`."""
    deadline: Seconds | None = None
    """Seconds after submission; written `36h`."""
    rho_min: Share | None = None
    """None: the model's floor."""
    rho_max: Share = 1.0
    rho_start: Share = 0.6
    """ρ of the first segment where the daemon does not answer within 30 s."""
    may_pause: bool = True
    clocks: Literal["off", "auto"] = "off"
    """auto: the board's graphics clock may be lowered where a step then takes fewer joules, and the deadline holds."""
    max_slowdown: Annotated[float, Field(ge=1, le=10)] = 1.25
    """How many times as long a step may take at a lower clock."""
    eur_per_kg: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """What a kg of CO2e is worth, EUR/kg: hours are chosen by grams and money; 0: by money. None: by grams alone."""

    @field_validator("deadline")
    @classmethod
    def _future(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise ValueError("must lie after submission; write a duration such as 36h")
        if value is not None and value > _MOST_DEADLINE_S:
            raise ValueError("must lie within ten years; write a duration such as 36h")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        budgets = sum(
            b is not None for b in (self.budget_g, self.budget_share, self.budget_rate_g_per_h, self.pool)
        )
        min_carbon, metered = self.objective == "min-carbon", self.objective == "meter"
        if budgets and metered:
            raise refusal("objective", "meter has no budget", "drop one of them")
        if budgets > 1 or (budgets == 0 and not min_carbon and not metered):
            raise ValueError(
                "give exactly one of budget_g, budget_share, budget_rate_g_per_h and pool, e.g. budget_g = 120.0"
            )
        if min_carbon and (self.rho_mean is None or self.deadline is None):
            missing = "rho_mean = 0.7" if self.rho_mean is None else 'deadline = "36h"'
            raise refusal(
                "objective", "min-carbon needs the wanted rho_mean and a deadline", f"add {missing}"
            )
        if min_carbon and (self.budget_rate_g_per_h is not None or self.pool is not None):
            raise refusal(
                "objective",
                "min-carbon goes with budget_g, budget_share or no budget",
                "drop pool or budget_rate_g_per_h",
            )
        if min_carbon and self.eur_per_kg is not None:
            raise refusal(
                "eur_per_kg", "weighs money, min-carbon looks for the fewest grams alone", "drop one of them"
            )
        if self.rho_mean is not None and not min_carbon:
            raise refusal("rho_mean", "is for min-carbon", 'add objective = "min-carbon" or drop it')
        if self.rho_mean is not None and not (self.rho_min or 0.0) <= self.rho_mean <= self.rho_max:
            raise refusal("rho_mean", f"{self.rho_mean} lies outside rho_min and rho_max", "widen them")
        if self.weight != 1.0 and self.pool is None:
            raise refusal("weight", "is for jobs that share a pool", "add pool or drop it")
        if self.rho_min is not None and self.rho_min > self.rho_max:
            raise refusal("rho_min", f"{self.rho_min} is above rho_max {self.rho_max}", "swap or widen them")
        return self


class CommandPart(Doc):
    """What `carbonsched run` was given: a command that the daemon meters and did not start.

    Example:
        >>> CommandPart(argv=["make"]).stop
        False
    """

    argv: Annotated[tuple[str, ...], Field(min_length=1)]
    stop: bool = False
    """End it at its budget."""
    warn: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of the budget at which a warning is given."""
    grace_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    """Seconds from SIGTERM to SIGKILL, where it is stopped or cancelled; fewer where the budget does not pay for them."""


class JobSpec(Doc):
    """JOB.toml, as its owner wrote it.

    Example:
        >>> spec = {"name": "a", "model": {"name_or_path": "m"}, "data": {"name_or_path": "d.jsonl"}, "carbon": {"budget_g": 9.0}}
        >>> JobSpec.model_validate(spec).train.method
        'auto'
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    model: ModelPart
    data: DataPart
    train: TrainPart = TrainPart()
    evaluate: EvaluatePart = EvaluatePart()
    carbon: CarbonPart
    queue: QueuePart = QueuePart()
    labels: Labels = {}
    """For whom it runs and why: `project`, `cost_centre` and any other key. Reports group by them, `ps --filter label=…` finds by them."""
    command: CommandPart | None = None
    """Of `carbonsched run` alone: no trainer is started for it."""

    notify: tuple[Happening, ...] = ()
    """What its submitter is mailed about, where the box mails submitters."""

    @property
    def sha256(self) -> str:
        """Of its canonical JSON, in hex."""
        text = json.dumps(
            self.dump(), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def of_command(
        cls, name: str, command: CommandPart, budget_g: float | None, labels: Labels | None = None
    ) -> Self:
        """The spec of a command, which has neither model nor data that we know of."""
        unknown = {"name_or_path": "-"}
        carbon = {"objective": "meter"} if budget_g is None else {"budget_g": budget_g}
        told = {"name": name, "carbon": carbon, "command": command.dump(), "labels": labels or {}}
        return cls.parse({"model": unknown, "data": unknown} | told)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.carbon.objective == "meter" and self.command is None:
            raise refusal("carbon.objective", "meter is for carbonsched run", "give a budget")
        traits = METHODS.get(self.train.method)
        if traits is not None and (rule := method_conflict(self, traits)) is not None:
            raise refusal(*rule)
        if self.train.scheduler == "budget" and (rule := open_end_conflict(self)) is not None:
            raise refusal(*rule)
        held_out = self.data.validation is not None or data_suffix(self.data.name_or_path) is None
        if self.train.early_stop_patience is not None and not held_out:
            raise refusal(
                "train.early_stop_patience",
                "there are no held-out rows",
                "set data.validation, or leave it out",
            )
        return self


@lru_cache(maxsize=256)
def data_suffix(name: str) -> str | None:
    """What kind of data file bears this name, as one of DATA_SUFFIXES, whether compressed or not; None: none.

    Example:
        >>> data_suffix("Train.JSONL.gz"), data_suffix("train.parquet.gz")
        ('.jsonl', None)
    """
    path = PurePath(name.lower())
    packed = path.suffix in COMPRESSED
    suffix = path.with_suffix("").suffix if packed and path.stem else path.suffix
    return suffix if suffix in DATA_SUFFIXES and not (packed and suffix in (".parquet", ".arrow")) else None


class Owner(Doc):
    """Who submitted a job, as the kernel says of the socket's peer.

    Example:
        >>> Owner(uid=1000, gid=1000, user="ada").user
        'ada'
    """

    uid: int
    gid: int
    pid: int | None = None
    user: str


class SubmittedJob(Doc):
    """`spec.json`: the job as accepted, immutable from then on.

    Example::

        from pathlib import Path

        from carbonsched.model.files import load

        job = load(Path("spec.json"), SubmittedJob)
    """

    id: str
    spec: JobSpec
    owner: Owner
    submitted_at: UtcTime
    sha256: str
    """Of the canonical JSON of `spec`."""

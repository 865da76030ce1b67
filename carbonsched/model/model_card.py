"""Writes a model card: Markdown with YAML in front, as the Hugging Face hub reads it (`co2_eq_emissions` among it).

One text for two writers: the trainer writes it beside the model and does not know the grams, the daemon writes it from the ledger
and does. What is not known is left out, with a comment that says why, and is never 0.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.methods.traits import METHODS
from carbonsched.model.setting import Setting

PEFT = "peft"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Known:
    """A value, or why there is none.

    Example:
        >>> Known(None, "no device was metered").why_not
        'no device was metered'
    """

    value: str | float | None
    why_not: str = ""


class TrainedSegment(Protocol):
    """What a card says of a segment; `SegmentDone` and `SegmentFigures` have it.

    Example::

        def mean_rho(segments: Sequence[TrainedSegment]) -> float:
            return sum(s.flops for s in segments) / sum(s.flops_full for s in segments)
    """

    @property
    def k(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def setting(self) -> Setting | None: ...
    @property
    def rho_directed(self) -> float: ...
    @property
    def rho_planned(self) -> float: ...
    @property
    def rho_realised(self) -> float: ...
    @property
    def flops(self) -> float: ...
    @property
    def flops_full(self) -> float: ...
    @property
    def loss(self) -> float | None: ...


class Evaluation(Protocol):
    """What a card says of one evaluation on held-out rows; an `Evaluated` event has it.

    Example::

        def last_loss(evaluations: Sequence[Evaluation]) -> float | None:
            return evaluations[-1].loss if evaluations else None
    """

    @property
    def when(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, slots=True)
class Card:
    """What a card says; `text` writes it.

    Example:
        >>> from carbonsched.model.job import JobSpec
        >>> spec = JobSpec.parse({"name": "demo", "model": {"name_or_path": "acme/lm"}, "data": {"name_or_path": "acme/rows"},
        ...     "carbon": {"budget_g": 1}})
        >>> unknown = Known(None, "nothing was metered")
        >>> Card(spec, unknown, unknown, unknown, "carbonsched", (), ()).text().splitlines()[2]
        'base_model: "acme/lm"'
    """

    spec: JobSpec
    emissions_g: Known
    location: Known
    hardware: Known
    source: str
    """Of the emissions: who counted what."""
    segments: Sequence[TrainedSegment]
    evaluations: Sequence[Evaluation]
    grams: Mapping[int, float] = field(default_factory=dict)
    """By segment, of those whose energy and intensity are known throughout."""
    estimated: bool = False
    """Whether the emissions rest on an estimate, of energy or of intensity."""
    library: str = "transformers"
    facts: Sequence[tuple[str, str]] = ()
    """Further lines of the carbon section: name, value."""
    generation: dict[str, object] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def text(self) -> str:
        return "\n".join([*self._front(), "", *self._body()]) + "\n"

    # ---- YAML

    def _front(self) -> list[str]:
        spec = self.spec
        return [
            "---",
            f"library_name: {_quoted(self.library)}",
            *_hub("base_model", spec.model.name_or_path, ""),
            *_hub("datasets", spec.data.name_or_path, "- "),
            "tags:",
            '- "carbonsched"',
            f"- {_quoted(spec.train.method)}",
            "co2_eq_emissions:",
            *_entry("emissions", self.emissions_g),
            f"  source: {_quoted(self.source)}",
            '  training_type: "fine-tuning"',
            *_entry("geographical_location", self.location),
            *_entry("hardware_used", self.hardware),
            "# license: left to whoever publishes the model; the base model's and the data's terms apply",
            "---",
        ]

    # ---- Markdown

    def _body(self) -> list[str]:
        spec, train = self.spec, self.spec.train
        flops, full = sum(s.flops for s in self.segments), sum(s.flops_full for s in self.segments)
        carbon = [("Emissions", f"{_number(self.emissions_g.value)} gCO2e{' (estimated)' * self.estimated}" if self.emissions_g.value is not None
                   else f"not known here: {self.emissions_g.why_not}"), *self.facts]  # fmt: skip
        if full > 0:
            carbon += [
                ("Training FLOPs", f"{flops:.4g}, counted (2 per multiply-accumulate, importance included)"),
                ("Of full fine-tuning", f"{flops / full:.1%} of {full:.4g} FLOPs (ρ realised)"),
            ]
        lines = [
            f"# {_plain(spec.name)}",
            "",
            f"`{_plain(spec.model.name_or_path)}` fine-tuned on `{_plain(spec.data.name_or_path)}` by carbonsched, "
            f"method `{train.method}`{self._chosen()}.",
            "",
            "## Carbon and compute",
            "",
            *_table(("", ""), carbon),
            "",
            "## ρ, segment by segment",
            "",
            *self._segments(),
            "",
            "## Training",
            "",
            *_table(("setting", "value"), self._settings()),
            "",
            "## Evaluation",
            "",
            *self._evaluation(),
        ]
        if self.notes:
            lines += ["", "## Notes", "", *(f"- {_plain(note)}" for note in self.notes)]
        if self.versions:
            lines += ["", "## Versions", "", *_table(("package", "version"), sorted(self.versions.items()))]
        return lines

    def _chosen(self) -> str:
        """What a method that changes its setting trained, in the order of its first segments."""
        methods = dict.fromkeys(s.setting.method for s in self.segments if s.setting is not None)
        told = ", ".join(f"`{_plain(method)}`" for method in methods if method != self.spec.train.method)
        return f", which trained {told}" if told else ""

    def _segments(self) -> list[str]:
        if not self.segments:
            return ["No segment was finished."]
        grams = any(s.k in self.grams for s in self.segments)
        head = ["segment", "steps", "ρ directed", "ρ planned", "ρ realised", "FLOPs", "loss"]
        rows = [
            [
                str(s.k + 1),
                str(s.steps),
                *(f"{rho:.3f}" for rho in (s.rho_directed, s.rho_planned, s.rho_realised)),
                f"{s.flops:.4g}",
                _number(s.loss),
                *([_number(self.grams.get(s.k))] if grams else []),
            ]
            for s in self.segments
        ]
        return _table([*head, "gCO2e"] if grams else head, rows)

    def _settings(self) -> list[tuple[str, str]]:
        train = self.spec.train
        return [
            ("epochs", "as many as the budget paid for" if train.epochs is None else str(train.epochs)),
            ("steps", str(sum(s.steps for s in self.segments))),
            ("batch size", f"{train.batch_size} × {train.gradient_accumulation}"),
            (
                "learning rate",
                f"{train.lr:g}{_scaling(train)}, {train.scheduler}, {train.warmup_steps} steps of warm-up",
            ),
            ("weights", self.spec.model.dtype),
            ("seed", str(train.seed)),
        ]

    def _evaluation(self) -> list[str]:
        if not self.evaluations:
            return ["There were no held-out rows."]
        names = sorted({name for row in self.evaluations for name in row.metrics})
        rows = [
            [row.when, str(row.step), str(row.samples), f"{row.loss:.4f}",
             *(_number(row.metrics.get(name)) for name in names)]
            for row in self.evaluations
        ]  # fmt: skip
        lines = [
            *_table(["when", "step", "rows", "loss", *names], rows),
            "",
            "Loss is in nats per target token; ROUGE F1, exact match and F1 are in percent, the best of several references.",
        ]
        if self.generation:
            said = ", ".join(f"{name} {value}" for name, value in self.generation.items())
            lines += ["", f"Text was generated with {_plain(said)}."]
        return lines


def _hub(key: str, name: str, bullet: str) -> list[str]:
    if _HUB_ID.fullmatch(name) is None:
        return [f"# {key}: not the id of something on the hub"]
    return [f"{key}:", f"{bullet}{_quoted(name)}"] if bullet else [f"{key}: {_quoted(name)}"]


def _entry(key: str, known: Known) -> list[str]:
    if known.value is None:
        return [f"  # {key}: {' '.join(known.why_not.split())}"]
    return [f"  {key}: {_quoted(known.value) if isinstance(known.value, str) else _yaml_float(known.value)}"]


def _yaml_float(value: float) -> str:
    # YAML 1.1 takes 1e-05 for a text: it wants the point
    mantissa, e, exponent = repr(float(value)).partition("e")
    return f"{mantissa}{'' if '.' in mantissa else '.0'}{e}{exponent}"


def _quoted(text: str) -> str:
    # a JSON string is a YAML string
    return json.dumps(text, ensure_ascii=False)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows),
    ]


def _scaling(train: TrainPart) -> str:
    traits = METHODS.get(train.method)
    if train.lr_scaling == "as-given" or traits is None or traits.lr_multiplier == 1:
        return ""
    if traits.switches:
        return " (full fine-tuning's; each setting takes its own multiple)"
    return f" (full fine-tuning's; {train.method} takes up to {traits.lr_multiplier:g} times that)"

"""The EU AI Act's threshold for fine-tuning: executed FLOP against a third of the base model's, or 3.3e22 if that is unknown."""

from typing import Final

from carbonsched.errors import InputError
from carbonsched.ledger.ledger import Ledger
from carbonsched.report.compute import AI_ACT_SOURCE
from carbonsched.report.datapoints import COUNTED, STATED, Line, energy_quality, head, lines_csv
from carbonsched.report.document import Report
from carbonsched.report.format import ReportFormat

_NOT_STATED: Final = "not stated: name it in [[base_models]]; 3.3e22 counts instead"
_NOT_COUNTED: Final = "no segment was finished: no FLOPs are counted"


def ai_act_lines(report: Report) -> tuple[Line, ...]:
    """The data points of one job."""
    job, done = report.job, report.compute
    if job is None:
        return ()
    return (
        *head(report),
        Line("base model", job.spec.model.name_or_path, "", STATED, "job file"),
        Line(
            "FLOP executed in fine-tuning",
            done.flop if done else None,
            "FLOP",
            COUNTED,
            "the trainer's count of forward and backward passes, importance included",
            "all finished attempts; what was cut off in mid-segment, evaluation and recomputation are not in it" if done else _NOT_COUNTED,
        ),
        Line(
            "training compute of the base model",
            done.base_flop if done else None,
            "FLOP",
            STATED,
            (done.base_source if done else None) or "base_models",
            "" if done and done.base_flop is not None else _NOT_STATED,
        ),
        Line("threshold", done.threshold if done else None, "FLOP", STATED, AI_ACT_SOURCE),
        Line("share of the threshold", done.flop / done.threshold if done else None, "1", COUNTED, "executed ÷ threshold"),
        Line(
            "above the threshold",
            ("yes" if done.above else "no") if done else None,
            "",
            COUNTED,
            "executed > threshold",
            "of this job alone: earlier fine-tuning of the same model adds up" if done else _NOT_COUNTED,
        ),
        Line("energy of fine-tuning", report.totals.energy_kwh if report.totals.seconds > 0 else None, "kWh", energy_quality(report), "ledger", "without PUE; Annex XI asks for known or estimated energy"),
    )  # fmt: skip


def ai_act(report: Report, _ledger: Ledger) -> str:
    """The table as CSV. Raises InputError for the report of a period: base models differ."""
    if report.job is None:
        raise InputError("--format", "ai-act is of one job", "give --job ID")
    return lines_csv(ai_act_lines(report))


AI_ACT: Final = ReportFormat("text/csv; charset=utf-8", ai_act)

"""What `carbonsched submit --explain` shows people: the job's plan, its band, what binds and what more would buy."""

from typing import TYPE_CHECKING

from carbonsched import text
from carbonsched.cli import output as o

if TYPE_CHECKING:
    from rich.table import Table

    from carbonsched.model.profile import CheckResult
    from carbonsched.model.views import Explained

ROWS = 40
_DOES = {"train": "trains at once", "wait": "waits first", "stop": "cannot be afforded"}
_BINDS = {
    "budget": "the budget",
    "deadline": "the deadline",
    "rho_min": "the lowest ρ",
    "rho_max": "the highest ρ",
    "rho_mean": "the wanted ρ",
    "guard": "the guard (what the rest needs if the grid turns out dirty)",
}


def show(told: "Explained", checked: "CheckResult") -> None:
    out = o.console()
    out.print(_facts(told, checked))
    if told.segments:
        out.print()
        out.print(_segments(told))
    out.print()
    out.print("Estimated from:", style="bold")
    for line in (*told.assumptions, *checked.notes):
        out.print(f"  {line}")
    out.print("nothing was queued; without --explain the job is submitted", style="dim")


def _facts(told: "Explained", checked: "CheckResult") -> "Table":
    spread = f"{text.grams(told.low_g)} to {text.grams(told.high_g)}"
    late = ""
    if told.deadline is not None and told.end is not None:
        left = (told.deadline - told.end).total_seconds()
        late = f", {text.duration(abs(left))} {'before' if left >= 0 else 'AFTER'} the deadline"
    facts = [
        ("Job", f"{told.name}: {checked.steps} steps in {told.segments_in_all} segments, ρ from {checked.rho_floor:.3f}"),
        ("It", f"{_DOES[told.action]}: {told.reason}"),
        ("Budget", f"{text.NOT_KNOWN if told.budget_g is None else text.grams(told.budget_g)} ({told.budget})"),
        ("Start", text.moment(told.start)),
        ("End", f"{text.moment(told.end)}{late}" if told.end else f"past the horizon: {len(told.segments)} segments were planned"),
        ("ρ", f"{text.rho(told.rho)} in the mean, for {text.figure(None if told.gain is None else 100 * told.gain)}% of full fine-tuning's gain"),
        ("Spends", f"~{text.grams(told.g)}, likely {spread}; {text.grams(told.loading_g)} of it for loading, {text.grams(told.evaluation_g)} for evaluation; floor {text.grams(told.floor_g)}"),
        ("Energy", text.energy(told.energy_j, True)),
        ("Binds", ", ".join(_BINDS.get(name, name) for name in told.binds) or "nothing: ρ is at its top all along"),
        ("One more", _more(told)),
    ]  # fmt: skip
    if told.action == "stop":
        facts = [fact for fact in facts if fact[0] in ("Job", "It", "Budget")] + [
            ("Floor", f"~{text.grams(told.floor_g)}")
        ]
    made = o.table("key", "value", wrap=("value",))
    made.show_header = False
    for key, value in facts:
        made.add_row(key, value)
    return made


def _more(told: "Explained") -> str:
    parts = []
    if told.gain_per_more_g is not None:
        parts.append(f"gram buys {_gain(told.gain_per_more_g)}")
    if told.gain_per_more_hour is not None:
        parts.append(f"hour before the deadline buys {_gain(told.gain_per_more_hour)}")
    if told.g_per_more_hour is not None:
        parts.append(f"hour before the deadline saves {text.grams(told.g_per_more_hour)}")
    return "; ".join(parts) or text.NOT_KNOWN


def _gain(share: float) -> str:
    return f"{text.figure(100 * share)}% of full fine-tuning's gain" if share >= 1e-9 else "nothing"


def _segments(told: "Explained") -> "Table":
    made = o.table("SEG", "START", "END", "ρ", "~g", "LOW", "HIGH", right=("SEG", "ρ", "~g", "LOW", "HIGH"))
    for s in told.segments[: ROWS if len(told.segments) > ROWS + 1 else None]:
        made.add_row(
            str(s.k + 1), text.moment(s.start), text.moment(s.end), text.rho(s.rho), *map(text.figure, (s.g, s.low_g, s.high_g))
        )  # fmt: skip
    rest = len(told.segments) - ROWS
    if rest > 1:
        made.add_row("…", f"and {rest} more: --json", "", "", "", "", "")
    return made

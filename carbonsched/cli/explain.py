"""Shows the result of `carbonsched submit --explain`: the plan, its band, the binding constraint, and the gain of one more gram or hour."""

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
    "price": "the price: cheaper hours are waited for",
    "guard": "the guard (what the rest needs if the grid turns out dirty)",
}


def show(answer: "Explained", checked: "CheckResult") -> None:
    out = o.console()
    out.print(_facts(answer, checked))
    if answer.segments:
        out.print()
        out.print(_segments(answer))
    out.print()
    out.print("Estimated from:", style="bold")
    for line in (*answer.assumptions, *checked.notes):
        out.print(f"  {line}")
    if answer.removals:
        out.print()
        out.print("Waste of a stock Trainer:", style="bold")
        for one in answer.removals:
            out.print(f"  {'left out' if one.on else 'remains'}: {one.text}", markup=False)
    out.print("nothing was queued; without --explain the job is submitted", style="dim")


def _facts(answer: "Explained", checked: "CheckResult") -> "Table":
    spread = f"{text.grams(answer.low_g)} to {text.grams(answer.high_g)}"
    late = ""
    if answer.deadline is not None and answer.end is not None:
        left = (answer.deadline - answer.end).total_seconds()
        late = f", {text.duration(abs(left))} {'before' if left >= 0 else 'AFTER'} the deadline"
    facts = [
        ("Job", f"{answer.name}: {_steps(answer, checked)}, ρ from {checked.rho_floor:.3f}"),
        ("It", f"{_DOES[answer.action]}: {answer.reason}"),
        ("Budget", f"{text.NOT_KNOWN if answer.budget_g is None else text.grams(answer.budget_g)} ({answer.budget})"),
        ("Start", text.moment(answer.start)),
        ("End", f"{text.moment(answer.end)}{late}" if answer.end else f"past the horizon: planned were {text.several(len(answer.segments), 'segment')}"),
        ("ρ", f"{text.rho(answer.rho)} in the mean{'' if answer.gain is None else f', for {_gain(answer.gain)}'}"),
        ("Spends", f"~{text.grams(answer.g)}, likely {spread}; {text.grams(answer.loading_g)} of it for loading, {text.grams(answer.evaluation_g)} for evaluation; floor {text.grams(answer.floor_g)}"),
        *([("Loss", _losses(answer))] if answer.losses else []),
        ("Energy", text.energy(answer.energy_j, True)),
        *([("Costs", f"~{text.figure(answer.eur, 'EUR')}")] if answer.eur is not None else []),
        *([("Money", answer.money)] if answer.money is not None else []),
        ("Binds", ", ".join(_BINDS.get(name, name) for name in answer.binds) or "nothing: ρ is at its top all along"),
        ("One more", _more(answer)),
    ]  # fmt: skip
    if answer.action == "stop":
        facts = [fact for fact in facts if fact[0] in ("Job", "It", "Budget")] + [
            ("Floor", f"~{text.grams(answer.floor_g)}")
        ]
    made = o.table("key", "value", wrap=("value",))
    made.show_header = False
    for key, value in facts:
        made.add_row(key, value)
    return made


def _steps(answer: "Explained", checked: "CheckResult") -> str:
    if answer.steps_unknown is not None:
        return f"how many steps is not known yet ({answer.steps_unknown})"
    about = "about " if checked.steps is None else ""
    return f"{about}{text.several(answer.steps or checked.steps, 'step')} in {text.several(answer.segments_in_all, 'segment')}"


def _losses(answer: "Explained") -> str:
    """`120 g: expected loss 2.87 ± 0.02; at 60 g 2.95 ± 0.03`, or in shares of an unknown loss."""
    told: list[str] = []
    for one in answer.losses:
        of = text.NOT_KNOWN if one.budget_g is None else text.grams(one.budget_g)
        loss, margin = one.loss, (one.high - one.low) / 2
        value = f"{loss:.0%} ± {margin:.0%}" if answer.loss_relative else f"{loss:.2f} ± {margin:.2f}"
        told.append(f"at {of} {value}" if told else f"{of}: expected loss {value}")
    what = " of the loss before training" if answer.loss_relative else " nats a token"
    if len(answer.losses) == 1 and answer.budget_g is not None:
        what += f"; half of that pays for no such job, it takes {text.grams(answer.floor_g)} at least"
    return f"{'; '.join(told)}{what} (estimated: {answer.loss_basis})"


def _more(answer: "Explained") -> str:
    parts = []
    if answer.gain_per_more_g is not None:
        parts.append(f"gram buys {_gain(answer.gain_per_more_g)}")
    if answer.gain_per_more_hour is not None:
        parts.append(f"hour before the deadline buys {_gain(answer.gain_per_more_hour)}")
    if answer.g_per_more_hour is not None:
        parts.append(f"hour before the deadline saves {text.grams(answer.g_per_more_hour)}")
    return "; ".join(parts) or text.NOT_KNOWN


def _gain(share: float) -> str:
    return f"{text.figure(100 * share)}% of the whole job's gain" if share >= 1e-9 else "nothing"


def _segments(answer: "Explained") -> "Table":
    priced = any(s.eur is not None for s in answer.segments)
    columns = ("SEG", "START", "END", "ρ", "~g", "LOW", "HIGH", *(("~EUR",) if priced else ()))
    made = o.table(*columns, right=("SEG", "ρ", "~g", "LOW", "HIGH", "~EUR"))
    for s in answer.segments[: ROWS if len(answer.segments) > ROWS + 1 else None]:
        made.add_row(
            str(s.k + 1), text.moment(s.start), text.moment(s.end), text.rho(s.rho), *map(text.figure, (s.g, s.low_g, s.high_g, *((s.eur,) if priced else ())))
        )  # fmt: skip
    rest = len(answer.segments) - ROWS
    if rest > 1:
        made.add_row("…", f"and {rest} more: --json", *[""] * (len(columns) - 2))
    return made

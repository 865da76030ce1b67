"""`carbonsched show ID`: show one job, its segments, its history and the reason of its state."""

import shlex
from typing import TYPE_CHECKING, Any

import typer

from carbonsched import text
from carbonsched.cli.options import Debug, JobId, Json, Socket, connect
from carbonsched.cli.ps import starts

if TYPE_CHECKING:
    from rich.table import Table

    from carbonsched.model.views import JobDetail


def show(
    ctx: typer.Context, job: JobId, json: Json = False, socket: Socket = None, debug: Debug = False
) -> None:
    """Show one job: its spending, every segment with planned and realised ρ, the reason, its history."""
    from carbonsched.cli.output import emit

    detail = connect(ctx).show(job)
    if json:
        emit(detail)
    else:
        _print(detail)


def _print(job: "JobDetail") -> None:
    from carbonsched.cli import output as o

    out = o.console()
    out.print(_facts(job))
    if job.segments_done:
        out.print()
        out.print(_segments(job))
        if own := _own_run(job):
            out.print(f"  {own}")
        if waste := _waste(job):
            out.print(f"  {waste}")
        for done in job.segments_done:
            if done.departure:
                out.print(f"  segment {done.k + 1}: {done.departure}", style="yellow", markup=False)
    if job.validation:
        out.print()
        out.print("VALIDATION", style="bold")
        for event in job.validation:
            metrics = "".join(f", {name} {text.figure(value)}" for name, value in event["metrics"].items())
            loss = text.figure(event["loss"], digits=5)
            out.print(
                f"  {event['when']} step {event['step']}: loss {loss} over {text.several(event['samples'], 'row')}{metrics}"
            )
    if job.history:
        out.print()
        out.print("HISTORY", style="bold")
        rows = o.table("at", "state", "actor", "reason", wrap=("reason",))
        rows.show_header = False
        for change in job.history:
            rows.add_row(f"  {change.get('at', '')}", *_change(change))
        out.print(rows)
    if job.left_out:
        more = ", ".join(f"{number:,} of {kind}" for kind, number in job.left_out.items())
        out.print()
        out.print(f"older ones are left out: {more}", style="dim")
    if job.estimated:
        out.print()
        out.print(o.LEGEND, style="dim")


def _own_run(job: "JobDetail") -> str | None:
    """ρ relative to the user's own run, if weights are frozen or adapters train: that takes less than full fine-tuning."""
    told = [(done.k + 1, done.rho_realised, done.rho_own) for done in job.segments_done]
    if not any(own is not None and text.rho(own) != text.rho(rho) for _, rho, own in told):
        return None
    shown = ", ".join(f"{text.rho(own)} (segment {k})" for k, _, own in told[-_LAST:])
    return f"ρ against what this script trains without selection: {shown}"


def _waste(job: "JobDetail") -> str | None:
    """The avoided waste of a stock Trainer on the same rows, as a figure beside ρ."""
    found = job.waste
    if found is None or not found.stock_flops:
        return None
    shares = (found.flops, found.padding_flops, found.head_flops)
    ours, padding, head = (f"{100 * flops / found.stock_flops:.1f}%" for flops in shares)
    drawn = "; estimated, a stock run's order is a random draw" if found.estimated else ""
    begins = "waste left out" if found.flops <= found.stock_flops else "waste added"
    return (
        f"{begins}: full fine-tuning here takes {ours} of a stock Trainer's FLOPs "
        f"(padding {padding}, logits without a label {head}{drawn})"
    )


_OF_TRAINING = ("Segment", "ρ", "Loss", "Model", "Data", "Method", "Wanted", "Hours", "Deadline")
"""Facts that a command of `carbonsched run` does not have."""
_LAST = 6
"""Number of segments whose ρ relative to the own run is shown."""

_SHOWN_ELSEWHERE = ("at", "kind", "actor", "state", "sha256", "name")
"""Keys of a history entry that `show` prints elsewhere."""
_OF_RESTARTS = ("before", "events", "names", "uid")
"""Keys that a restarted daemon and auditors read; `--json` has them."""


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _change(change: dict[str, Any]) -> tuple[str, str, str]:
    """The event, its actor, and its reason or amount."""
    what = str(change.get("state") or change.get("kind") or "")
    reason = change.get("reason") or change.get("text")
    if what == "budget":
        reason = f"{text.grams(change['budget_g'])}: {reason}"
    if reason is None:
        known = {
            key: value
            for key, value in change.items()
            if key not in _SHOWN_ELSEWHERE + _OF_RESTARTS and value not in (None, (), [])
        }
        reason = ", ".join(f"{key} {_plain(value)}" for key, value in known.items())
    return what, str(change.get("actor") or ""), str(reason)


def _facts(job: "JobDetail") -> "Table":
    from carbonsched.cli import output as o

    carbon = job.spec.carbon
    min_carbon = carbon.objective == "min-carbon"
    unset = "none, as little as the wanted ρ takes" if min_carbon else "not resolved yet"
    if carbon.objective == "meter":
        unset = "none, it is metered alone"
    budget = text.grams(job.budget_g) if job.budget_g is not None else unset
    if carbon.budget_share is not None:
        budget += f" (share {carbon.budget_share:g} of full fine-tuning)"
    elif carbon.budget_rate_g_per_h is not None:
        budget += f" (grows by {carbon.budget_rate_g_per_h:g} g/h)"
    elif carbon.pool is not None:
        budget += f" (its part of pool {carbon.pool}, weight {carbon.weight:g})"
    spent = text.grams(job.spent_g, job.estimated)
    if job.budget_g:
        spent += f" of {budget}, {100 * job.spent_g / job.budget_g:.1f}%"
    else:
        spent += f"; budget {budget}"
    if job.unknown_s:
        spent += f"; unknown for {text.duration(job.unknown_s)}"
    directed = f"{text.rho(job.rho)} directed, " if job.rho is not None else ""
    floor = text.rho(carbon.rho_min) if carbon.rho_min else "its floor"
    now = f", {text.about(job.power_w, job.estimated, 'W')} now" if job.state.live else ""
    facts = [
        ("Job", f"{job.id}  {job.name}"),
        ("Owner", job.owner),
        ("State", job.state.value),
        ("Why", job.reason),
        ("Segment", f"{text.nth(job.segment, job.segments, job.segments_over)}, step {text.figure(job.step, digits=9)} of {_steps(job)}"),
        ("ρ", f"{directed}between {floor} and {carbon.rho_max:g}"),
        ("Spent", spent),
        ("Energy", f"{text.energy(job.energy_j, job.estimated)}{now}"),
        *([("Costs", text.about(job.eur, job.estimated, "EUR"))] if job.eur is not None else []),
        ("Loss", text.figure(job.loss, digits=5)),
        ("Boards", ", ".join(job.boards) or text.NOT_KNOWN),
        ("Model", f"{job.spec.model.name_or_path} ({job.spec.model.dtype})"),
        ("Data", f"{job.spec.data.name_or_path} ({job.spec.data.task or 'task by its fields'})"),
        ("Method", job.spec.train.method),
        *([("Output", job.output)] if job.output else []),
        ("Submitted", text.moment(job.submitted_at)),
        ("Started", text.moment(job.started_at)),
        *([("Starts", starts(job))] if job.starts_why else []),
        ("Ended", text.moment(job.ended_at)) if job.ended_at else ("Left", text.duration(job.eta_s)),
        ("Wanted", f"mean ρ {carbon.rho_mean:g} for the fewest grams" if min_carbon else "the most gain for the budget"),
        ("Hours", ", ".join(carbon.allowed_hours) + f" {carbon.timezone}" if carbon.allowed_hours else "any"),
        *([("Labels", ", ".join(f"{k}={v}" for k, v in sorted(job.labels.items())))] if job.labels else []),
        ("Deadline", text.duration(carbon.deadline) + " after submission" if carbon.deadline else "none"),
        ("SHA-256", job.sha256),
    ]  # fmt: skip
    if job.spec.command is not None:
        facts = [(key, value) for key, value in facts if key not in _OF_TRAINING]
        facts.insert(3, ("Command", shlex.join(job.spec.command.argv)))
    made = o.table("key", "value", wrap=("value",))
    made.show_header = False
    for key, value in facts:
        made.add_row(key, value)
    return made


def _steps(job: "JobDetail") -> str:
    if job.steps is not None or job.steps_expected is None:
        return text.figure(job.steps, digits=9)
    about = "" if job.phase == "cooldown" else "about "
    return f"{about}{job.steps_expected} ({job.phase or 'as many as the budget pays for'})"


def _segments(job: "JobDetail") -> "Table":
    from carbonsched.cli import output as o

    made = o.table(
        "SEG", "ρ DIR", "PLAN", "REAL", "STEPS", "LOSS", "ENERGY", "g", "g/kWh", "W", "TOOK", "TENSORS",
        right=("SEG", "ρ DIR", "PLAN", "REAL", "STEPS", "LOSS", "ENERGY", "g", "g/kWh", "W", "TOOK", "TENSORS"),
    )  # fmt: skip
    for done in job.segments_done:
        made.add_row(
            str(done.k + 1),
            text.rho(done.rho_directed),
            text.rho(done.rho_planned),
            text.rho(done.rho_realised),
            str(done.steps),
            text.figure(done.loss, digits=4),
            text.energy(done.energy_j, job.estimated),
            text.about(done.spent_g, job.estimated),
            text.figure(done.g_per_kwh),
            text.about(done.power_w, job.estimated),
            text.duration((done.end - done.start).total_seconds()),
            str(len(done.selected)),
        )
    return made

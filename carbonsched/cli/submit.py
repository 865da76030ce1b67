"""`carbonsched submit JOB.toml`: check a job as its owner, then send it to the daemon."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carbonsched import text
from carbonsched.cli import standard_streams
from carbonsched.cli.options import Debug, Json, Socket, connect
from carbonsched.text import one_line

if TYPE_CHECKING:
    from carbonsched.cli.client import Client
    from carbonsched.model.job import JobSpec
    from carbonsched.model.profile import CheckResult
    from carbonsched.model.views import Submitted


Job = Annotated[
    Path | None,
    typer.Argument(
        metavar="JOB.toml",
        help="The job; docs/configuration.md has every key. `-` reads it from stdin; without it --model and --data are the job.",
        show_default=False,
    ),
]
BudgetG = Annotated[float | None, typer.Option("--budget-g", metavar="GRAMS", help="For `carbon.budget_g`.")]
Deadline = Annotated[str | None, typer.Option(metavar="DURATION", help="For `carbon.deadline`, such as 36h.")]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of the job, such as train.lr=1e-4; repeatable."),
]
Label = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        "-l",
        metavar="KEY=VALUE",
        help="A label, such as project=thesis, which reports group by; repeatable.",
    ),
]
After = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ID", help="Start it only when this job has finished; repeatable. For `queue.after`."
    ),
]
Priority = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="For `queue.priority`: higher starts first, above 0 is for admins.",
        show_default=False,
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it has ended; exit codes as `wait`.")]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Queue nothing: say when it would run, at which ρ, for how many grams, what binds and what more would buy.",
    ),
]


def submit(
    ctx: typer.Context,
    job: Job = None,
    model: Annotated[str | None, typer.Option(help="Hub id or folder, for `model.name_or_path`.")] = None,
    data: Annotated[str | None, typer.Option(help="Hub id, folder or file, for `data.name_or_path`.")] = None,
    method: Annotated[str | None, typer.Option(help="For `train.method`.")] = None,
    name: Annotated[str | None, typer.Option(help="What the job is called.")] = None,
    budget_g: BudgetG = None,
    deadline: Deadline = None,
    assign: Assign = None,
    label: Label = None,
    after: After = None,
    priority: Priority = None,
    hold: Annotated[bool, typer.Option("--hold", help="Start it only when `release` says so.")] = False,
    wait: Wait = False,
    explain: Explain = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Check a job and queue it.

    First the trainer checks model, data, batch shapes and the floor of ρ, as you; if it finds a fault, nothing is
    queued. Relative paths in JOB.toml start at its own folder, those of options and of stdin at the working directory.
    """
    from carbonsched.cli.flags import naming_flags
    from carbonsched.cli.job_options import flags_of, read
    from carbonsched.errors import InputError

    if wait and explain:
        raise InputError("--explain", "queues nothing that --wait could wait for", "give one of the two")
    options: dict[str, object] = {
        "name": name,
        "model.name_or_path": model,
        "data.name_or_path": data,
        "train.method": method,
        "carbon.budget_g": budget_g,
        "carbon.deadline": deadline,
        "queue.after": after,
        "queue.priority": priority,
        "queue.hold": hold or None,
    }
    spec = read(job, options, assign or (), label or ())
    with naming_flags(flags_of(options, assign or ())):
        _hand_over(connect(ctx), spec, wait=wait, explain=explain, json=json)


def _hand_over(client: "Client", spec: "JobSpec", *, wait: bool, explain: bool, json: bool) -> None:
    """Have the job checked, then explained or queued."""
    from carbonsched.cli.output import emit
    from carbonsched.cli.trainer_check import check

    if not explain and (submitted := client.submitted(spec)) is not None:
        _follow(client, submitted, wait=wait, json=json)
        return
    checked = check(spec, client.version().trainer_python)
    if explain:
        from carbonsched.cli.explain import show

        answer = client.explain(spec, checked)
        emit(answer) if json else show(answer, checked)
        return
    submitted = client.submit(spec, checked)
    if not json:
        _show_check(checked)
    _follow(client, submitted, wait=wait, json=json)


def _follow(client: "Client", submitted: "Submitted", *, wait: bool, json: bool) -> None:
    from carbonsched.cli.output import emit
    from carbonsched.cli.wait import follow

    if not json:
        standard_streams.say(f"{submitted.id} {submitted.state}")
    if wait:
        raise typer.Exit(follow(client, submitted.id, json))
    if json:
        emit(submitted)


def _show_check(checked: "CheckResult") -> None:
    """Print the results of the check for people."""
    if sys.stdout.isatty():
        print(
            f"checked {checked.params / 1e6:.1f} M parameters, {text.several(checked.rows, 'row')}, {_steps(checked)}, "
            f"ρ from {checked.rho_floor:.3f}"
        )
    for note in checked.notes:
        print(one_line(f"note: {note}"), file=sys.stderr)


def _steps(checked: "CheckResult") -> str:
    if checked.steps is not None:
        return f"{text.several(checked.steps, 'step')} in {text.several(checked.segments, 'segment')}"
    most = "" if checked.most_steps is None else f", {checked.most_steps} at most"
    return f"as many steps as the budget pays for{most}, in segments of {checked.segment_steps}"

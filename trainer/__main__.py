"""The command `python -m trainer`: profiles, prices, selects, checks, trains and benchmarks. What each does is in trainer/commands/.

Each prints one JSON document on stdout and nothing else. Exit codes: 0 done, 1 failed, 2 bad usage or bad input (one
line on stderr that names the field and says what to do).
"""

import sys

from trainer.job import stop_signal

if __name__ == "__main__":
    stop_signal.install_early(sys.argv[1:])  # before the imports that take time

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.base import Doc

INTERRUPTED = 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The training half of carbonsched: FLOPs profiles, tensor selection, and the runs themselves.",
)
bench = typer.Typer(rich_markup_mode=None, invoke_without_command=True)
app.add_typer(bench, name="bench")

Json = Annotated[
    bool, typer.Option("--json", help="JSON on stdout; these commands print nothing else anyway.")
]
ProfileFile = Annotated[
    Path, typer.Option("--profile", help="What `profile` printed.", metavar="P.json", show_default=False)
]


@app.command(epilog="Example: python -m trainer profile --model ./smollm2 --batch 4 --seq 128 > P.json")
def profile(
    model: Annotated[
        str, typer.Option(help="A folder with a config.json (weights are not needed), or a hub id.")
    ],
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")],
    seq: Annotated[
        int, typer.Option(min=1, help="Tokens in a sequence: what an encoder reads, or all of a decoder's.")
    ],
    target_seq: Annotated[
        int | None, typer.Option(min=1, help="Tokens an encoder-decoder writes (default: as many as --seq).")
    ] = None,
    labelled: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of a sequence that alone meet the output embeddings (default: all)."
        ),
    ] = None,
    attn: Annotated[
        Literal["eager", "sdpa"],
        typer.Option(help="Attention: sdpa's fused backward counts 2.5 times its forward."),
    ] = "eager",
    dtype: Annotated[Literal["fp32", "bf16", "fp16"], typer.Option(help="Of the weights.")] = "fp32",
    gradient_share: Annotated[
        float | None,
        typer.Option(
            help="Share of a sequence, from its end, that gradient flows through; the rest runs beforehand.",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure the training FLOPs of every tensor of a model at one batch shape."""
    from trainer.commands import profile as commands_profile

    _print(commands_profile.profile(model, batch, seq, target_seq, attn, dtype, labelled, gradient_share))


@app.command(epilog="Example: python -m trainer cost --profile P.json --selections S.json")
def cost(
    profile: ProfileFile,
    selections: Annotated[
        Path, typer.Option(help="A list of lists of tensor names.", metavar="S.json", show_default=False)
    ],
    json: Json = False,
) -> None:
    """Price selections: forward + backward FLOPs of a batch with just these tensors trained."""
    from trainer.commands import profile as commands_profile

    _print(commands_profile.cost(profile, selections))


@app.command(epilog="Example: python -m trainer select --profile P.json --importance I.json --rho 0.6")
def select(
    profile: ProfileFile,
    importance: Annotated[
        Path,
        typer.Option(help="Importance of each tensor: {name: value}.", metavar="I.json", show_default=False),
    ],
    rho: Annotated[float | None, typer.Option(help="FLOPs ratio that the selection must meet.")] = None,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="The best importance for every rho instead.")
    ] = False,
    points: Annotated[
        int | None, typer.Option(min=2, help="With --frontier: about this many steps of it, not all.")
    ] = None,
    json: Json = False,
) -> None:
    """Choose the tensors of greatest total importance within a FLOPs ratio; exactly."""
    from trainer.commands import profile as commands_profile

    if (rho is None) == (not frontier):
        raise InputError("--rho", "is given with --frontier, or neither is", "give one of the two")
    if frontier:
        _print(commands_profile.frontier(profile, importance, points))
    elif rho is not None:
        _print(commands_profile.select(profile, importance, rho))


@app.command(epilog="Example: python -m trainer check spec.json --json")
def check(
    spec: Annotated[Path, typer.Argument(help="A job's spec: spec.json or JOB.toml.", metavar="SPEC")],
    json: Json = False,
) -> None:
    """Check a job before it is accepted: model, data, rho floor, batch shapes."""
    from trainer.commands import run as commands_run

    _print(commands_run.check(spec))


@app.command(epilog="Example: python -m trainer run /var/lib/carbonsched/jobs/7")
def run(
    job_dir: Annotated[
        Path,
        typer.Argument(help="The job directory that holds spec.json, or a JOB.toml.", metavar="JOB_DIR"),
    ],
    alone: Annotated[
        bool, typer.Option("--alone", help="Ask no daemon: train at the spec's rho_start throughout.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Of a JOB.toml: the folder to train in (default: its name, here).", metavar="DIR"),
    ] = None,
    parts: Annotated[
        bool, typer.Option("--parts", help="Time the parts of each step, into parts.json in the folder.")
    ] = False,
) -> None:
    """Train a job: its directives come in control.json, its events go to events.jsonl. A JOB.toml needs no daemon."""
    from trainer.commands import run as commands_run

    code = commands_run.run(job_dir, alone=alone, out=out, parts=parts)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # all is written and closed; threads that gloo may still hold would abort the process while it unloads
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)


@bench.callback(
    epilog="Example: python -m trainer bench --job job.toml --method full --method lora --method greentrainer "
    "--rho 0.5 --rho 0.6 --seed 0 --seed 1 --tune --out results"
)
def bench_methods(
    context: typer.Context,
    job: Annotated[
        Path | None, typer.Option(help="Model, data and training settings.", metavar="JOB.toml")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A folder or hub id, in place of the job's.")] = None,
    data: Annotated[str | None, typer.Option(help="A file, folder or hub id, in place of the job's.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="METHOD[@RHO][,key=value...] with keys of [train]; may be repeated."),
    ] = None,
    rho: Annotated[list[float] | None, typer.Option(help="A ratio for methods without one.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed; may be repeated (default: 0).")] = None,
    lr: Annotated[
        list[str] | None, typer.Option(help="Learning rate, or METHOD:RATE; where tuning starts.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Walk each learning rate by factors of 2, by the dev loss.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Where runs and results are kept.")] = Path("bench"),
    against: Annotated[
        list[str] | None, typer.Option(help="A method to compare each with (default: full); may be repeated.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    json: Json = False,
) -> None:
    """Compare methods at FLOPs ratios over seeds: one JSON, a table and plots; a run that was cut short goes on."""
    if context.invoked_subcommand is not None:
        return
    if not method:
        raise InputError("--method", "is missing", "give at least one, e.g. --method full")
    from trainer.commands import bench as commands_bench

    rhos, seeds, compared = rho or [], seed or [0], against or ["full"]
    _print(commands_bench.bench(job, model, data, method, rhos, seeds, lr or [], tune, out, compared, quiet))


@bench.command(
    "championship",
    epilog="Example: python -m trainer bench championship docs/results/championship.toml --out championship",
)
def bench_championship(
    file: Annotated[Path, typer.Argument(help="A JOB.toml with a [championship].", metavar="FILE.toml")],
    out: Annotated[Path, typer.Option(help="Where runs and results are kept.")] = Path("championship"),
    share: Annotated[
        list[float] | None, typer.Option(help="A budget, in place of the file's; may be repeated.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="A seed, in place of the file's.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time.")] = 1,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing: write what the finished runs came to.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    json: Json = False,
) -> None:
    """Compare methods at equal grams: one JSON, a table and plots; a championship that was cut short goes on."""
    from trainer.commands import bench as commands_bench

    _print(commands_bench.championship(file, out, share or [], seed or [], jobs, report_only, quiet))


@bench.command(
    "select", epilog="Example: python -m trainer bench select --shape opt-2.7b --rho 0.5 --rho 0.7"
)
def bench_select(
    profile: Annotated[
        Path | None, typer.Option("--profile", help="What `profile` printed.", metavar="P.json")
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="Instead of a profile: opt-1.3b, opt-2.7b, opt-6.7b, llama-3-70b, smollm2-135m."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="With --shape: sequences in a batch.")] = 4,
    seq: Annotated[int, typer.Option(min=1, help="With --shape: tokens in a sequence.")] = 512,
    importance: Annotated[
        Path | None, typer.Option(help="Importance of each tensor (default: drawn).", metavar="I.json")
    ] = None,
    rho: Annotated[list[float] | None, typer.Option(help="A ratio; may be repeated.")] = None,
    json: Json = False,
) -> None:
    """Time the selection beside the published dynamic program, and compare what they reach."""
    from trainer.commands import profile as commands_profile

    rhos = rho or [0.4, 0.5, 0.6, 0.7, 0.8]
    _print(commands_profile.bench_select(profile, shape, batch, seq, importance, rhos))


@bench.command(
    "importance",
    epilog="Example: python -m trainer bench importance --model ./smollm2 --data ./scitldr --steps 20",
)
def bench_importance(
    job: Annotated[
        Path | None, typer.Option(help="Model, data and training settings.", metavar="JOB.toml")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A folder or hub id, in place of the job's.")] = None,
    data: Annotated[str | None, typer.Option(help="A file, folder or hub id, in place of the job's.")] = None,
    tensors: Annotated[int, typer.Option(min=1, help="Drawn, each to be stepped alone.")] = 40,
    steps: Annotated[
        int,
        typer.Option(min=0, help="Of full fine-tuning, after which all is measured again; 0: only before."),
    ] = 20,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of a step on one tensor.")] = 1e-4,
    train_lr: Annotated[
        float | None, typer.Option(min=0, help="Of the steps, in place of the job's.")
    ] = None,
    optimizer: Annotated[
        Literal["adamw", "sgd", "adafactor"] | None, typer.Option(help="In place of the job's.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Rows a batch, in place of the job's.")] = None,
    seq: Annotated[int | None, typer.Option(min=8, help="Tokens per row at most, likewise.")] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Rows that the loss is measured on.")] = 16,
    seed: Annotated[int | None, typer.Option(help="Of the draws, in place of the job's.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no table on stderr.")] = False,
    json: Json = False,
) -> None:
    """Rank correlation of each importance with the drop of the held-out loss when single tensors are stepped."""
    from trainer.commands import bench as commands_bench

    settings = {"lr": train_lr, "optimizer": optimizer, "batch_size": batch, "seed": seed}
    _print(commands_bench.importance(job, model, data, settings, seq, tensors, steps, lr, held_out, quiet))


@bench.command(
    "waste", epilog="Example: python -m trainer bench waste --model ./smollm2 --data ./scitldr --rows 64"
)
def bench_waste(
    model: Annotated[str, typer.Option(help="A folder or hub id.", show_default=False)],
    data: Annotated[str, typer.Option(help="A file, folder or hub id.", show_default=False)],
    batch: Annotated[int | None, typer.Option(min=1, help="Rows a batch (default: 4).")] = None,
    max_length: Annotated[
        int | None, typer.Option(min=8, help="Tokens per row at most (default: 512).")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="So many rows, drawn (default: all).")] = None,
    count_only: Annotated[bool, typer.Option("--count-only", help="FLOPs alone: nothing is run.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the order of the rows (default: 0).")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads (default: all cores).")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress and no table on stderr.")] = False,
    json: Json = False,
) -> None:
    """FLOPs of a stock Trainer over all rows once against ours, loss and gradient beside them."""
    from trainer.commands import bench as commands_bench

    settings = {"batch_size": batch, "seed": seed, "threads": threads}
    _print(commands_bench.waste(model, data, settings, max_length, rows, count_only, quiet))


def _print(document: Doc) -> None:
    sys.stdout.write(document.model_dump_json() + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code. Errors are one line on stderr, never a traceback."""
    try:
        code = app(args=argv, prog_name="python -m trainer", standalone_mode=False)
    except CarbonschedError as e:
        return _complain(str(e), e.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as e:
        # the option parser's own errors; anything else is a defect and keeps its traceback
        format_message = getattr(e, "format_message", None)
        if format_message is None:
            raise
        command = getattr(getattr(e, "ctx", None), "command_path", "python -m trainer")
        return _complain(f"{format_message().rstrip('.')} (see {command} --help)", InputError.exit_code)
    return code if isinstance(code, int) else 0


def _complain(text: str, code: int) -> int:
    print("trainer:", " ".join(text.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())

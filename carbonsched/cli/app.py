"""Collects all commands under one name, with the examples that `--help` shows."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from carbonsched import __version__
from carbonsched.cli import doctor as doctors
from carbonsched.cli.actions import cancel, hold, pause, release, resume
from carbonsched.cli.audit import add_up, anchor, diff, export, roll_up, verify
from carbonsched.cli.budget import budget
from carbonsched.cli.daemon import daemon
from carbonsched.cli.drain import drain, undrain
from carbonsched.cli.grid import grid
from carbonsched.cli.help import Command, Group
from carbonsched.cli.imports import codecarbon, zeus
from carbonsched.cli.init import init
from carbonsched.cli.install import install, uninstall
from carbonsched.cli.logs import logs
from carbonsched.cli.options import Debug, Json, Socket
from carbonsched.cli.pools import pools
from carbonsched.cli.ps import ps
from carbonsched.cli.removal import prune, rm
from carbonsched.cli.report import report
from carbonsched.cli.run import run
from carbonsched.cli.show import show
from carbonsched.cli.simulate import simulate
from carbonsched.cli.submit import submit
from carbonsched.cli.top import top
from carbonsched.cli.version import version
from carbonsched.cli.wait import wait


def _print_version(value: bool) -> None:
    if value:
        print(f"carbonsched {__version__}")
        raise typer.Exit


def _examples(*lines: str) -> str:
    # one paragraph a line: the help formatter folds single newlines
    return "\n\n".join(("Examples:" if len(lines) > 1 else "Example:", *lines))


app = typer.Typer(
    cls=Group,
    help="Fine-tuning under a carbon budget: submit jobs to the daemon of this box and watch what they spend.",
    epilog=_examples(
        "carbonsched submit job.toml --wait", "carbonsched ps", "carbonsched grid --forecast 24"
    ),
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    socket: Socket = None,
    debug: Debug = False,
    json: Json = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


def _command(group: typer.Typer) -> Callable[..., Callable[[Callable[..., None]], object]]:
    return partial(group.command, cls=Command)


JOBS = "Jobs"
BOX = "The box"

_command(app)(
    rich_help_panel=JOBS,
    epilog=_examples(
        "carbonsched init", "carbonsched init qa.toml --model org/model --data rows.jsonl --budget-g 80"
    ),
)(init)
_command(app)(
    rich_help_panel=JOBS,
    epilog=_examples(
        "carbonsched submit job.toml",
        "carbonsched submit job.toml --wait",
        "carbonsched submit job.toml --explain",
        "carbonsched submit --model org/model --data rows.jsonl --budget-g 80 --set train.epochs=2",
    ),
)(submit)
_command(app)(
    rich_help_panel=JOBS,
    epilog=_examples(
        "carbonsched run -- python train.py",
        "carbonsched run --budget-g 5 --stop --device 0 -- make",
        "carbonsched run --ledger mine.db --intensity 350 -- python train.py",
    ),
)(run)
_command(app)(
    rich_help_panel=JOBS,
    epilog=_examples("carbonsched ps", "carbonsched ps -q --filter state=queued", "carbonsched ps --json"),
)(ps)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched top", "carbonsched top --json"))(top)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched show scitldr-7f3a1c"))(show)
_command(app)(
    rich_help_panel=JOBS,
    epilog=_examples("carbonsched logs scitldr-7f3a1c", "carbonsched logs -f scitldr-7f3a1c"),
)(logs)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched wait scitldr-7f3a1c && echo finished"))(
    wait
)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched pause scitldr-7f3a1c"))(pause)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched resume scitldr-7f3a1c"))(resume)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched hold scitldr-7f3a1c"))(hold)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched release scitldr-7f3a1c"))(release)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched budget scitldr-7f3a1c --grams 150"))(budget)
_command(app)(rich_help_panel=JOBS, epilog=_examples("carbonsched cancel scitldr-7f3a1c"))(cancel)
_command(app)(
    rich_help_panel=JOBS,
    epilog=_examples("carbonsched rm scitldr-7f3a1c", "carbonsched rm scitldr dialogsum"),
)(rm)
_command(app)(
    rich_help_panel=JOBS,
    epilog=_examples(
        "carbonsched prune --older-than 30d --dry-run",
        "carbonsched prune --older-than 7d --state failed --owner '*'",
    ),
)(prune)
_command(app)(
    rich_help_panel=BOX,
    epilog=_examples("carbonsched drain --reason 'new disks' --wait && reboot", "carbonsched drain"),
)(drain)
_command(app)(rich_help_panel=BOX, epilog=_examples("carbonsched undrain"))(undrain)
_command(app)(
    rich_help_panel=BOX,
    epilog=_examples(
        "carbonsched grid",
        "carbonsched grid --forecast 48 --json",
        "carbonsched grid --setup --place Berlin -o config.toml",
        "carbonsched grid --zones Denmark",
        "carbonsched grid --probe --config config.toml",
    ),
)(grid)
_command(app)(rich_help_panel=BOX, epilog=_examples("carbonsched pools", "carbonsched pools --json"))(pools)
_command(app)(
    rich_help_panel=BOX,
    epilog=_examples(
        "carbonsched report --job scitldr-7f3a1c --format html -o report.html",
        "carbonsched report --from 2026-11-01 --to 2026-12-01 --format csv",
    ),
)(report)
audit = typer.Typer(cls=Group, help="Check the ledger, and hand it to others.", rich_markup_mode="rich")
audit.callback()(lambda: None)
_command(audit)(
    epilog=_examples(
        "carbonsched audit verify",
        "carbonsched audit verify --ledger sqlite:////var/lib/carbonsched/ledger.db --json",
        "carbonsched audit verify --against heads-2026-11-28 --ca authority.pem",
    )
)(verify)
_command(audit)(epilog=_examples("carbonsched audit export ledger-2026-11"))(export)
_command(audit)(
    name="roll-up",
    epilog=_examples(
        "carbonsched audit roll-up --ledger sqlite:////var/lib/carbonsched/ledger.db --archive /var/lib/carbonsched/archive"
    ),
)(roll_up)
_command(audit)(
    name="add-up", epilog=_examples("carbonsched audit add-up --ledger /var/lib/carbonsched/ledger.db")
)(add_up)
_command(audit)(epilog=_examples("carbonsched audit diff ledger-2026-10 ledger-2026-11"))(diff)
_command(audit)(
    epilog=_examples(
        "carbonsched audit anchor heads-2026-11-28 --url https://freetsa.org/tsr --ca freetsa.pem",
        "carbonsched audit anchor heads-2026-11-28 --sign ~/.ssh/id_ed25519",
    )
)(anchor)
app.add_typer(audit, name="audit", rich_help_panel=BOX)
imports = typer.Typer(
    cls=Group,
    help="Take over what other tools measured, apart from what is metered here.",
    rich_markup_mode="rich",
)
imports.callback()(lambda: None)
_command(imports)(
    epilog=_examples(
        "carbonsched import codecarbon emissions.csv --timezone Europe/Berlin",
        "carbonsched import codecarbon emissions.csv --dry-run",
    )
)(codecarbon)
_command(imports)(epilog=_examples("carbonsched import zeus windows.csv --intensity 350"))(zeus)
app.add_typer(imports, name="import", rich_help_panel=BOX)
_command(app)(
    rich_help_panel=BOX,
    epilog=_examples(
        "carbonsched simulate --trace de.csv --start 2022-03-01T00:00:00Z --segments 24 --segment-kwh 1.2 "
        "--segment-hours 1 --fixed-share 0.2 --budget-g 6000 --policy mpc",
        "carbonsched simulate --trace de.csv --start 2022-03-01T00:00:00Z --job job.toml --policy oracle --json",
    ),
)(simulate)
_command(app)(
    rich_help_panel=BOX,
    epilog=_examples("carbonsched doctor", "sudo -u carbonsched carbonsched doctor --config config.toml"),
)(doctors.doctor)
config = typer.Typer(cls=Group, help="Check the daemon's config.", rich_markup_mode="rich")
config.callback()(lambda: None)
_command(config)(epilog=_examples("carbonsched config check config.toml"))(doctors.check)
app.add_typer(config, name="config", rich_help_panel=BOX)
_command(app)(
    rich_help_panel=BOX,
    epilog=_examples("sudo /opt/carbonsched/bin/carbonsched install --systemd"),
)(install)
_command(app)(rich_help_panel=BOX, epilog=_examples("sudo carbonsched uninstall"))(uninstall)
_command(app)(rich_help_panel=BOX, epilog=_examples("carbonsched version --json"))(version)
_command(app)(
    rich_help_panel=BOX, epilog=_examples("carbonsched daemon --config /etc/carbonsched/carbonsched.toml")
)(daemon)

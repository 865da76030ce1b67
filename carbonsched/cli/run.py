"""`carbonsched run -- CMD…`: start a command, have its energy metered, and say at the end what it emitted."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from carbonsched import text
from carbonsched.cli.flags import INTENSITY_G_PER_KWH, between, naming_flags
from carbonsched.cli.options import Debug, Json, Socket, connect
from carbonsched.errors import CarbonschedError, InputError, UnreachableError

if TYPE_CHECKING:
    from carbonsched.cli.run_child import Child
    from carbonsched.model.command import RunEnd, RunRequest, RunStarted, RunStatus, RunTotal

LOOK_S = 1.0
"""Between two looks at how the run stands."""
AWAY_S = 30.0
"""A daemon that is away when the command ends is waited for so long."""
_GRACE_S = 30.0
"""As of `CommandPart`: a daemon that is away cannot tell."""


_FLAGS = {
    "name": "--name",
    "budget_g": "--budget-g",
    "devices": "--device",
    "labels": "--label",
    "command.argv": "CMD",
    "command.warn": "--warn",
    "command.grace_s": "--grace",
}
"""Keys of a RunRequest, and the flags that fill them."""


class MeteredBy(Protocol):
    """Who meters: a daemon, over `Client`, or this process.

    Example::

        def total(by: MeteredBy, started: RunStarted) -> RunTotal:
            return by.end_run(started.id, RunEnd(code=0))
    """

    def begin_run(self, asked: "RunRequest") -> "RunStarted": ...
    def run_status(self, job_id: str) -> "RunStatus": ...
    def end_run(self, job_id: str, told: "RunEnd") -> "RunTotal": ...


Command = Annotated[
    list[str], typer.Argument(metavar="-- CMD…", help="The command and its arguments, behind `--`.")
]
BudgetG = Annotated[
    float | None,
    typer.Option(
        "--budget-g",
        metavar="GRAMS",
        help="CO2e it should not pass; you are warned, see --warn and --stop.",
    ),
]
Stop = Annotated[
    bool, typer.Option("--stop", help="End it (SIGTERM, later SIGKILL) before it passes the budget.")
]
Grace = Annotated[
    float | None,
    typer.Option(
        "--grace",
        metavar="SECONDS",
        callback=between(0, 3600, "s"),
        help="From SIGTERM to SIGKILL, 0 to 3600; 30 by default. --stop keeps back what it may emit meanwhile.",
    ),
]
Warn = Annotated[
    float | None,
    typer.Option(
        "--warn",
        metavar="SHARE",
        callback=between(0, 1, above=True),
        help="Warn at this share of the budget; 0.8 by default.",
    ),
]
Device = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="D",
        help="Whose energy is its own beside the host's: auto (a board that is free; the default), host (no board), all, or a "
        "board by UUID or index; repeatable. It sees no other board.",
    ),
]
Share = Annotated[
    bool,
    typer.Option("--share", help="Also a board that a job uses: the energy is split equally, estimated."),
]
Name = Annotated[
    str | None,
    typer.Option(help="What it is called in ps and reports; the command's own name by default."),
]
Label = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="A label, which reports group by; repeatable."),
]
Out = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the total, as JSON, here.")
]
Ledger = Annotated[
    Path | None,
    typer.Option(
        "--ledger", metavar="FILE", help="Without a daemon: meter it yourself, into this ledger (SQLite)."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="With --ledger: feeds, meters and PUE as a daemon's."),
]
Intensity = Annotated[
    float | None,
    typer.Option(
        "--intensity",
        metavar="G_PER_KWH",
        callback=between(0, INTENSITY_G_PER_KWH, "g/kWh"),
        help="With --ledger: a constant in place of feeds, 0 to 2000.",
    ),
]


def run(
    ctx: typer.Context,
    command: Command,
    budget_g: BudgetG = None,
    stop: Stop = False,
    grace: Grace = None,
    warn: Warn = None,
    device: Device = None,
    share: Share = False,
    name: Name = None,
    label: Label = None,
    out: Out = None,
    ledger: Ledger = None,
    config: Config = None,
    intensity: Intensity = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Run any command and count what it emits.

    It keeps your terminal, its streams, its signals and its exit code; the total is told on stderr. With --json the total goes to stdout,
    and what the command prints to stderr.
    """
    import os

    from carbonsched.cli.run_child import Child

    _check_limits(budget_g, stop, warn)
    if ledger is not None:
        _check_ledger(ledger)
    elif config is not None or intensity is not None:
        field = "--config" if config is not None else "--intensity"
        raise InputError(
            field, "is the daemon's to know", "drop it, or add --ledger FILE to meter without one"
        )
    told: dict[str, object] = {"name": name, "budget_g": budget_g, "devices": device, "share": share}
    request = _request(command, {"stop": stop, "warn": warn, "grace_s": grace}, told, label or [])
    if out is not None:
        _check_output(out)
    stdout = os.dup(1) if json else None
    if json:
        os.dup2(2, 1)
    child = Child.hold(command)
    try:
        metered = _metered_by(ctx, ledger, config, intensity)
        with metered as by:
            started = _begin(by, request.model_copy(update={"pid": child.pid}), child)
            total = _follow(by, started, child, grace)
    except BaseException:
        child.give_up()
        raise
    finally:
        if stdout is not None:
            sys.stdout.flush()
            os.dup2(stdout, 1)
    code = child.reap()
    _tell(total, out, ledger, as_json=json)
    raise typer.Exit(code)


def _check_limits(budget_g: float | None, stop: bool, warn: float | None) -> None:
    if budget_g is None and (stop or warn is not None):
        raise InputError("--stop" if stop else "--warn", "needs a budget", "add --budget-g GRAMS")


def _check_ledger(ledger: Path) -> None:
    if not ledger.name:
        raise InputError("--ledger", "names no file", "give one, such as mine.db")
    if ledger.parts[0].endswith(":"):
        raise InputError("--ledger", f"{ledger} is a URL", "give a file, such as mine.db")


def _check_output(out: Path) -> None:
    if not out.parent.is_dir():
        raise InputError("--output", f"there is no folder {out.parent}", "make it first")
    if out.is_dir():
        raise InputError("--output", f"{out} is a folder", "give a file, such as total.json")


def _request(
    command: list[str], limits: dict[str, object], told: dict[str, object], labels: list[str]
) -> "RunRequest":
    """What is asked of who meters. limits: `stop` and `warn`; told: other fields; of both None is the default. Raises InputError."""
    import os

    from carbonsched.cli.job_options import labels_of
    from carbonsched.model.command import AUTO, RunRequest

    def given(fields: dict[str, object]) -> dict[str, object]:
        return {key: value for key, value in fields.items() if value is not None}

    usual = {"name": _name_of(command[0]), "devices": [AUTO], "pid": os.getpid()}
    rest = {"command": {"argv": command} | given(limits), "labels": labels_of(labels)}
    with naming_flags(_FLAGS):
        return RunRequest.parse(usual | given(told) | rest)


def _metered_by(
    ctx: typer.Context, ledger: Path | None, config: Path | None, intensity: float | None
) -> AbstractContextManager[MeteredBy]:
    if ledger is None:
        return nullcontext(connect(ctx))
    from carbonsched.cli.run_alone import metering

    return metering(ledger, config, intensity)


def _begin(by: MeteredBy, asked: "RunRequest", child: "Child") -> "RunStarted":
    from carbonsched.cli.run_child import NOT_STARTED
    from carbonsched.model.command import RunEnd

    started = by.begin_run(asked)
    for note in started.notes:
        _say(note)
    try:
        child.go(started.env, started.lock)
    except CarbonschedError:
        by.end_run(started.id, RunEnd(code=NOT_STARTED))
        raise
    return started


def _follow(by: MeteredBy, started: "RunStarted", child: "Child", grace_s: float | None) -> "RunTotal | None":
    """Until it has ended; its total, None where nobody can tell it now."""
    from carbonsched.model.command import RunEnd

    watch = _Watch(by, started, child, _GRACE_S if grace_s is None else grace_s)
    while not child.ended(LOOK_S):
        watch.look()
    code, number = child.how()
    told, left = RunEnd(code=code, signal=number, at=datetime.now(UTC)), child.leave()
    until = time.monotonic() + AWAY_S
    while True:
        try:
            total = by.end_run(started.id, told)
            return total.model_copy(update={"remaining": left}) if total.remaining and left else total
        except UnreachableError as e:
            if time.monotonic() >= until:
                _say(f"the total is not known yet: {e}; later: carbonsched show {started.id}")
                return None
            time.sleep(LOOK_S)
        except CarbonschedError as e:
            _say(f"the total is not known: {e}")
            return None


class _Watch:
    """Looks at the run while the command runs: warns once, and ends it where it is to end."""

    def __init__(self, by: MeteredBy, started: "RunStarted", child: "Child", grace_s: float) -> None:
        self.by, self.id, self.child, self.grace_s = by, started.id, child, grace_s
        self.away = self.warned = self.short = False
        self.told_s: float | None = None

    def look(self) -> None:
        try:
            status = self.by.run_status(self.id)
        except CarbonschedError as e:
            if not self.away:
                _say(f"{e}; the command goes on")
            self.away = True
            self._kill_late()
            return
        self.away = False
        self._warn(status)
        self._say_short(status)
        if status.ending is not None:
            self._end(status.ending, kill=status.kill)

    def _warn(self, status: "RunStatus") -> None:
        if self.warned or status.budget_g is None or status.warn_g is None or status.spent_g < status.warn_g:
            return
        self.warned = True
        _say(f"{text.grams(status.spent_g)} of {text.grams(status.budget_g)} are spent")

    def _say_short(self, status: "RunStatus") -> None:
        if self.short or status.grace_s is None or status.budget_g is None or status.grace_s >= self.grace_s:
            return
        self.short = True
        _say(
            f"--grace: {self.grace_s:g} s at its present power take more than half of the budget of {text.grams(status.budget_g)}; "
            f"it gets {status.grace_s:.3g} s to end"
        )

    def _end(self, why: str, *, kill: bool) -> None:
        """The daemon asks it, too; but it may not be allowed to."""
        import signal

        if self.told_s is None:
            self.told_s = time.monotonic()
            _say(f"stopping it: {why}")
            self.child.signal_all(signal.SIGTERM)
        elif kill:
            self.child.signal_all(signal.SIGKILL)
        else:
            self._kill_late()

    def _kill_late(self) -> None:
        import signal

        if self.told_s is not None and time.monotonic() - self.told_s >= self.grace_s:
            self.child.signal_all(signal.SIGKILL)


def _tell(total: "RunTotal | None", out: Path | None, ledger: Path | None, *, as_json: bool) -> None:
    from carbonsched.cli import output, standard_streams

    if total is None:
        return
    if as_json:
        standard_streams.say(output.as_json(total))
    else:
        _say(_sentence(total, ledger))
    if out is not None:
        try:
            out.write_text(total.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as e:
            _say(f"--output: {out} cannot be written: {e.strerror}")


def _later(job_id: str, ledger: Path | None) -> str:
    """The command that tells of it later."""
    import shlex

    if ledger is None:
        return f"carbonsched show {job_id}"
    return f"carbonsched report --job {job_id} --ledger {shlex.quote(str(ledger))}"


def _sentence(total: "RunTotal", ledger: Path | None) -> str:
    """What it used, at what intensity, of which devices; and what is left out."""
    about = total.estimated
    spent = text.grams(total.spent_g, about) + " CO2e" if total.spent_g is not None else "unknown grams"
    energy = text.energy(total.energy_j, about) if total.energy_j is not None else "unknown energy"
    kinds = ", ".join(total.kinds) or "unknown"
    at = f" at {text.figure(total.g_per_kwh)} g/kWh ({kinds})" if total.g_per_kwh is not None else ""
    of = f" of {text.grams(total.budget_g)}" if total.budget_g is not None else ""
    why = "" if total.state == "finished" else f" ({total.reason})"
    said = [
        f"{total.id} {total.state}{why}: {spent}{of}, {energy}{at}, {text.long_duration(total.seconds)} on {', '.join(total.devices)}"
    ]
    if about:
        said.append("~ estimated")
    if total.unknown_s > 0:
        said.append(f"unknown for {text.long_duration(total.unknown_s)}, in no sum")
    if total.remaining:
        left = text.several(total.remaining, "process", "processes")
        until = (
            "metered to the end"
            if ledger is None
            else "not metered from now on, but by a next run with this ledger"
        )
        said.append(f"it left {left} running, {until}: {_later(total.id, ledger)}")
    return "; ".join([*said, *total.notes])


def _say(message: str) -> None:
    from carbonsched.cli import standard_streams

    standard_streams.say(f"carbonsched: {text.one_line(message)}", stderr=True)


def _name_of(command: str) -> str:
    """A name that a job may have, made of a command's."""
    import re

    made = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(command).name)[:40].lstrip("._-")
    return made or "command"

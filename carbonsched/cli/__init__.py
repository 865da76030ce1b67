"""The command `carbonsched`: one file per command; each uses the daemon's Unix socket over HTTP.

Slow modules are imported where they are used, so that `--help` and `daemon` stay light.

app               all commands under one name
options           the options that every command takes
flags             refusals in the name of the flag
ledger_file       opens what --ledger names
client            HTTP over the daemon's socket
help              commands whose flags show no type
standard_streams  output to a closed pipe, a full disk, or nowhere
output            prints one JSON document, or tables that fit a terminal
submit            submit; with --explain only the plan
init              init
job_options       the job of a submit: file, stdin or options
run               run
run_child         its command, and the signals to it
run_alone         meters it without a daemon
explain           shows such a plan
progress          shows a job to a person who waits for it
audit_progress    shows the progress of a verification
trainer_check     lets the trainer check a job before it is submitted
wait              wait
ps                ps
show              show
top               top
logs              logs
actions           cancel, pause and resume
budget            budget
drain             drain and undrain
removal           rm and prune
pools             pools
grid              grid
grid_setup        grid --setup
grid_zones        grid --zones
grid_probe        grid --probe
grid_prices       the price of a kWh, for grid and grid --probe
grid_supply       the site's own supply, for grid and grid --probe
grid_scores       the errors of forecasts, for grid
grid_places       the tables of docs/grid.md
report            report
audit             audit
imports           import codecarbon and import zeus
simulate          simulate
simulate_request  reads its options into simulation requests
simulate_output   shows one simulation
sweep             many simulations in one call
schemas           schemas
doctor            doctor and config check
checks            the checks of these two
daemon            daemon
install           install and uninstall
install_files     the files that it installs, and their places
completions       completions for bash, zsh and fish
manual            the manual page
version           version
"""

import errno
import sys
from typing import TYPE_CHECKING

from carbonsched.errors import CarbonschedError
from carbonsched.text import visible

if TYPE_CHECKING:
    import typer

    from carbonsched.cli.options import Settings

INTERRUPTED = 130
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code (docs/cli.md). Errors are one line on stderr, without a traceback."""
    from carbonsched.cli import standard_streams
    from carbonsched.cli.app import app
    from carbonsched.cli.options import Settings
    from carbonsched.cli.output import suit

    standard_streams.open_missing()
    # kept, since the option parser replaces them if the pipe is closed
    settings, out, err = Settings(), sys.stdout, sys.stderr
    for stream in (out, err):
        suit(stream)
    try:
        code = _run(app, argv, settings)
        lost = standard_streams.flush(out)
        return code if lost is None else _complain(_lost(lost), code or 1, settings.debug, lost)
    except BrokenPipeError:
        if not (standard_streams.gone(out) or standard_streams.gone(err)):
            raise
        return 0
    except SystemExit as e:  # raised by the option parser and the tables for the same reason
        if not isinstance(e.__context__, BrokenPipeError):
            raise
        return 0
    finally:
        standard_streams.flush(out)
        standard_streams.flush(err)


def _run(app: "typer.Typer", argv: list[str] | None, settings: "Settings") -> int:
    import typer

    try:
        code = app(args=argv, prog_name="carbonsched", standalone_mode=False, obj=settings)
    except CarbonschedError as e:
        return _complain(e, e.exit_code, settings.debug)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as e:
        if e.filename is None and e.errno in _UNWRITABLE:  # a file's own error names it
            return _complain(_lost(e), 1, settings.debug, e)
        return _internal(e, settings)
    except Exception as e:
        format_message = getattr(e, "format_message", None)  # the option parser's own errors
        if format_message is not None:
            from carbonsched.model.error_words import usage_words

            usage = getattr(getattr(e, "ctx", None), "command_path", "carbonsched")
            said = usage_words(format_message().rstrip("."))
            return _complain(f"{said} (see {usage} --help)", 2, settings.debug, e)
        return _internal(e, settings)
    return code if isinstance(code, int) else 0


def _internal(error: Exception, settings: "Settings") -> int:
    hint = "run it again with --debug and report this" if not settings.debug else "please report this"
    return _complain(f"internal error: {type(error).__name__}: {error}; {hint}", 1, settings.debug, error)


def _lost(error: OSError) -> str:
    return f"the output cannot be written: {error.strerror}; free space there, or write it elsewhere"


def _complain(text: object, code: int, debug: bool, cause: BaseException | None = None) -> int:
    if debug:
        import traceback

        error = cause or (text if isinstance(text, BaseException) else None)
        traceback.print_exception(error, file=sys.stderr)
    from carbonsched.cli import standard_streams

    standard_streams.say(f"carbonsched: {visible(' '.join(str(text).split()))}", stderr=True)
    return code

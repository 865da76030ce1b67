"""carbonsched(1), generated from the help of every command."""

from collections.abc import Iterator
from typing import Any

from carbonsched import __version__


def page() -> str:
    """In man's own format (groff -man)."""
    import typer

    from carbonsched.cli.app import app

    root = typer.main.get_command(app)
    lines = [
        f'.TH CARBONSCHED 1 "" "carbonsched {__version__}" "User commands"',
        ".SH NAME",
        r"carbonsched \- " + _text("fine-tuning under a carbon budget"),
        ".SH SYNOPSIS",
        ".B carbonsched",
        "[options] COMMAND [arguments]",
        ".SH DESCRIPTION",
        _text(root.help or ""),
        ".SH OPTIONS",
        *_options(root),
        ".SH COMMANDS",
        *_commands(root, "carbonsched"),
        ".SH EXIT STATUS",
        "0: done. 1: failed. 2: bad usage or bad input. 3: the daemon is not reachable.",
        ".SH ENVIRONMENT",
        ".TP",
        ".B CARBONSCHED_SOCKET",
        "The daemon's socket.",
        ".SH FILES",
        ".TP",
        ".I /etc/carbonsched/config.toml",
        "The daemon's configuration.",
        ".SH SEE ALSO",
        ".BR systemctl (1),",
        ".BR journalctl (1)",
    ]
    return "\n".join(lines) + "\n"


def _commands(group: Any, name: str) -> Iterator[str]:
    for word, command in group.commands.items():
        if command.hidden:
            continue
        if getattr(command, "commands", None):
            yield from _commands(command, f"{name} {word}")
            continue
        arguments = " ".join(
            param.metavar or param.name.upper()
            for param in command.params
            if param.param_type_name == "argument"
        )
        yield f".SS {_text(f'{name} {word} {arguments}'.strip())}"
        for paragraph in (command.help or "").replace("\b", "").split("\n\n"):
            yield _text(paragraph)
            yield ".PP"
        yield from _options(command)
        for example in (command.epilog or "").split("\n\n")[1:]:
            yield ".IP"
            yield ".EX"
            yield _text(example)
            yield ".EE"


def _options(command: Any) -> Iterator[str]:
    for param in command.params:
        if param.param_type_name != "option" or param.hidden:
            continue
        names = ", ".join((*param.opts, *param.secondary_opts))
        value = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
        yield ".TP"
        yield f".B {_text(names + value)}"
        yield _text(param.help or "")


def _text(text: str) -> str:
    """One line, with groff's special characters escaped."""
    line = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-").replace("`", "")
    line = "".join(c if ord(c) < 128 else rf"\[u{ord(c):04X}]" for c in line)
    return rf"\&{line}" if line[:1] in {".", "'"} else line

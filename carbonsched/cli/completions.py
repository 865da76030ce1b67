"""Completions for bash, zsh and fish, generated from the parser: no Python runs when a user presses Tab."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Word:
    """A command or an option, and its one-line description.

    Example:
        >>> Word("--json", "Print one JSON document.").name
        '--json'
    """

    name: str
    help: str
    takes: bool = False
    """Whether it is an option with a value."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The possible continuations of one command, or of a group's name.

    Example:
        >>> Entry("audit", (Word("verify", ""),), (), files=False).path
        'audit'
    """

    path: str
    """Empty: the program itself."""
    commands: tuple[Word, ...]
    options: tuple[Word, ...]
    files: bool


def entries() -> list[Entry]:
    """The program first, then each command in the order of the help."""
    import typer

    from carbonsched.cli.app import app

    return list(_walk(typer.main.get_command(app), ""))


def first_sentence(text: str) -> str:
    """One line without markup, for completions and the manual's list."""
    plain = re.sub(r"\[/?[a-z ]+\]|[`*]", "", " ".join(text.split()))
    return re.split(r"(?<=[.;:])\s", plain)[0].rstrip(".;:")


def _walk(command: Any, path: str) -> Iterator[Entry]:
    children = {name: child for name, child in getattr(command, "commands", {}).items() if not child.hidden}
    options = [
        Word(name, first_sentence(param.help or ""), takes=not param.is_flag)
        for param in command.params
        if param.param_type_name == "option" and not param.hidden
        for name in (*param.opts, *param.secondary_opts)
    ]
    arguments = any(
        param.param_type_name == "argument"
        or "FILE" in (param.metavar or "")
        or "DIR" in (param.metavar or "")
        for param in command.params
    )
    words = tuple(Word(name, first_sentence(child.help or "")) for name, child in children.items())
    yield Entry(path, words, (*options, Word("--help", "Show what it does and leave")), arguments)
    for name, child in children.items():
        yield from _walk(child, f"{path} {name}".strip())


def bash() -> str:
    """For bash-completion's folder."""
    cases = []
    for entry in entries():
        words = " ".join(word.name for word in (*entry.commands, *entry.options))
        cases.append(f'    "{entry.path}") words="{words}"; files={int(entry.files)} ;;')
    groups = "|".join(entry.path for entry in entries() if entry.path and entry.commands)
    takes = sorted({word.name for entry in entries() for word in entry.options if word.takes})
    return f"""# bash completion for carbonsched, made from its parser
_carbonsched() {{
  local cur prev words files path= i skip=
  cur=${{COMP_WORDS[COMP_CWORD]}}; prev=${{COMP_WORDS[COMP_CWORD-1]}}
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [ -n "$skip" ]; then skip=; continue; fi
    case ${{COMP_WORDS[i]}} in
      {"|".join(takes)}) skip=1 ;;
      -*) ;;
      *) case "$path" in
           "") path=${{COMP_WORDS[i]}} ;;
           {groups}) path="$path ${{COMP_WORDS[i]}}" ;;
         esac ;;
    esac
  done
  if [ -n "$skip" ]; then COMPREPLY=($(compgen -f -- "$cur")); return; fi
  case "$path" in
{chr(10).join(cases)}
    *) return ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  if [ "$files" = 1 ]; then COMPREPLY+=($(compgen -f -- "$cur")); fi
}}
complete -o filenames -F _carbonsched carbonsched
"""


def zsh() -> str:
    """For a folder of $fpath."""
    lines = [
        "#compdef carbonsched",
        "# made from carbonsched's parser",
        "_carbonsched() {",
        "  local state_path='' word skip=''",
        "  local -a before offered",
        "  before=(${(@)words[2,CURRENT-1]})",
        "  for word in $before; do",
        "    if [[ -n $skip ]]; then skip=''; continue; fi",
        "    case $word in",
    ]
    takes = sorted({word.name for entry in entries() for word in entry.options if word.takes})
    groups = "|".join(entry.path for entry in entries() if entry.path and entry.commands)
    lines += [
        f"      {'|'.join(takes)}) skip=1 ;;",
        "      -*) ;;",
        f"      *) case $state_path in '') state_path=$word ;; {groups}) state_path=\"$state_path $word\" ;; esac ;;",
        "    esac",
        "  done",
        "  if [[ -n $skip ]]; then _files; return; fi",
        "  case $state_path in",
    ]
    for entry in entries():
        words = " ".join(_zsh_word(word) for word in (*entry.commands, *entry.options))
        files = "; _files" if entry.files else ""
        lines.append(f"    '{entry.path}') offered=({words}); _describe command offered{files} ;;")
    return "\n".join([*lines, "  esac", "}", '_carbonsched "$@"', ""])


def _zsh_word(word: Word) -> str:
    return "'" + f"{word.name}:{word.help}".replace("'", "'\\''") + "'"


def fish() -> str:
    """For fish's vendor_completions.d."""
    lines = ["# made from carbonsched's parser"]
    groups = [entry.path for entry in entries() if entry.path and entry.commands]
    top = [word.name for word in entries()[0].commands]
    for entry in entries():
        if not entry.path:
            when = "not __fish_seen_subcommand_from " + " ".join(top)
        elif entry.path in groups:
            names = " ".join(word.name for word in entry.commands)
            when = f"__fish_seen_subcommand_from {entry.path}; and not __fish_seen_subcommand_from {names}"
        else:
            when = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in entry.path.split())
        for word in (*entry.commands, *entry.options):
            lines.append(f"complete -c carbonsched -n '{when}' {_fish_word(word)}")
    return "\n".join([*lines, ""])


def _fish_word(word: Word) -> str:
    text = word.help.replace("\\", "\\\\").replace("'", "\\'")
    if word.name.startswith("--"):
        name = f"-l {word.name[2:]}{' -r' if word.takes else ''}"
    elif word.name.startswith("-"):
        name = f"-s {word.name[1:]}{' -r' if word.takes else ''}"
    else:
        name = f"-f -a {word.name}"
    return f"{name} -d '{text}'"

"""docs/cli.md against the commands: every one, every flag, every route, no flag that is gone; --help has an example."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from support.box import Box
from support.command import cli

from carbonsched.api.app import create_app
from carbonsched.cli.app import app

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "cli.md").read_text()
SHARED = {"--json", "--socket", "--debug", "--help", "-h"}


def commands() -> dict[str, Any]:
    """`audit verify` → its parser's command."""
    found = {}
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        if hasattr(command, "commands"):
            found |= {f"{name} {inner}": below for inner, below in command.commands.items()}
        else:
            found[name] = command
    return found


COMMANDS = commands()


def section(name: str) -> str:
    found = re.search(rf"^### `carbonsched {name}\b.*?(?=^##|\Z)", TEXT, flags=re.M | re.S)
    assert found, f"docs/cli.md has no section for carbonsched {name}"
    return found[0]


def flags(command: Any) -> set[str]:
    return {flag for option in command.params for flag in option.opts if flag.startswith("-")}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_every_flag_and_an_example(name: str) -> None:
    text = section(name)
    said = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", re.sub(r"```.*?```", "", text, flags=re.S)))
    own = flags(COMMANDS[name])
    assert own - SHARED <= said
    assert said <= own | SHARED | {"--wait", "--explain"}
    assert f"$ carbonsched {name}" in text
    assert "JSON: [" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_shared_flags(name: str) -> None:
    assert flags(COMMANDS[name]) >= SHARED - {"--help", "-h"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example(name: str) -> None:
    ran = cli(*name.split(), "--help")
    assert ran.code == 0
    text = " ".join(ran.out.split())
    assert re.search(r"Examples?: ", text)
    assert f"carbonsched {name}" in text.split("Example")[1]
    assert "<bool>" not in text, "a flag takes no value"


def test_no_section_of_a_command_that_is_gone() -> None:
    documented = re.findall(
        r"^### `carbonsched ([a-z]+(?: (?:verify|export|diff|roll-up|add-up|anchor|check|codecarbon|zeus))?)",
        TEXT,
        flags=re.M,
    )
    assert sorted(documented) == sorted(COMMANDS)


def test_every_route_is_documented(tmp_path: Path) -> None:
    paths = create_app(Box(tmp_path)).openapi()["paths"]
    routes = {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}
    assert len(routes) == 25
    assert {route.split("?")[0] for route in re.findall(r"`((?:GET|POST) [^`]+)`", TEXT)} == routes


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loses_no_word_to_its_markup(name: str) -> None:
    """What stands in brackets would be taken for a colour, and leave two empty quotes."""
    assert "``" not in cli(*name.split(), "--help").out

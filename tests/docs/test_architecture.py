"""docs/architecture.md and CONTRIBUTING.md lead where they say: every path they name exists, and every room is named."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]*|[\w.-]+\.(?:md|toml|lock))`")
LINK = re.compile(r"\]\(([\w./-]+)(?:#[\w-]+)?\)")
ROOMS = sorted(
    str(path.parent.relative_to(ROOT))
    for top in ("carbonsched", "trainer")
    for path in (ROOT / top).rglob("__init__.py")
    if path.parent.parent != ROOT and "migrations" not in path.parts
)


def section(title: str) -> str:
    return ARCHITECTURE.split(f"## {title}\n")[1].split("\n## ")[0]


def paths(text: str) -> list[str]:
    return [name for name in PATH.findall(text) if not name.startswith(("carbonsched.toml", "JOB.toml"))]


@pytest.mark.parametrize("name", sorted({*paths(ARCHITECTURE), *paths(CONTRIBUTING)}))
def test_every_path_exists(name: str) -> None:
    assert (ROOT / name).exists()


@pytest.mark.parametrize(
    ("text", "folder"), [(ARCHITECTURE, "docs"), (CONTRIBUTING, ".")], ids=["architecture", "contributing"]
)
def test_every_link_leads_somewhere(text: str, folder: str) -> None:
    for target in LINK.findall(text):
        assert (ROOT / folder / target).exists(), target


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_named(room: str) -> None:
    assert f"`{room}/`" in ARCHITECTURE


def test_a_newcomer_finds_twenty_answers() -> None:
    rows = [line for line in section("Questions of a newcomer").splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 20
    for row in rows:
        _, question, answer, _ = row.split("|")
        assert question.strip().endswith("?")
        assert paths(answer), f"{question.strip()} is not answered by a path"


def test_every_way_goes_through_files_that_exist_in_order() -> None:
    for title in ("The way of a ρ", "The way of a gram"):
        steps = re.findall(r"^(\d+)\. (.+)$", section(title), flags=re.M)
        assert [int(n) for n, _ in steps] == list(range(1, len(steps) + 1))
        assert steps
        assert all(paths(step) for _, step in steps)


def test_every_command_to_type_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))
    for name in re.findall(r"make ([a-z-]+)", CONTRIBUTING + ARCHITECTURE):
        assert name in targets, name

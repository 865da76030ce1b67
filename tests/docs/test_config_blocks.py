"""Every configuration that the docs print starts: it is read, and its feeds make a chain of one basis."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from carbonsched.clock import SystemClock
from carbonsched.config import Config
from carbonsched.feeds.base import Site
from carbonsched.feeds.factory import build_chain
from carbonsched.model.job import JobSpec

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILES = [*sorted((ROOT / "deploy").glob("*.toml")), *sorted((ROOT / "examples").glob("*.toml"))]


def blocks() -> dict[str, tuple[str, Path]]:
    """Where it is → its text and the folder that its paths are read from."""
    found = {
        f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 1}": (match[1], page.parent)
        for page in PAGES
        for match in re.finditer(r"^```toml\n(.*?)^```", page.read_text(), flags=re.S | re.M)
    }
    return found | {file.name: (file.read_text(), file.parent) for file in FILES}


def kind(data: dict[str, Any]) -> str:
    """`daemon`, `job`, `package`, or `part`: some tables of the daemon's file."""
    if "feeds" in data:
        return "daemon"
    if "model" in data and "data" in data:
        return "job"
    return "package" if "project" in data or "tool" in data else "part"


BLOCKS = blocks()


@pytest.mark.parametrize("where", BLOCKS)
def test_a_printed_config_starts(where: str, tmp_path: Path) -> None:
    text, folder = BLOCKS[where]
    data = tomllib.loads(text)
    match kind(data):
        case "daemon":
            config = Config.parse(data, where=where, folder=folder)
            chain = build_chain(config.feeds, Site(config.zone, SystemClock(), tmp_path))
            assert len(chain.status()) == len(config.feeds)
        case "job":
            JobSpec.parse(data, where=where, folder=folder)
        case "part":
            feeds = [{"provider": "static", "country": "DEU"}]
            Config.parse({"feeds": feeds, **data}, where=where, folder=folder)


def test_the_blocks_are_found() -> None:
    kinds = [kind(tomllib.loads(text)) for text, _ in BLOCKS.values()]
    assert kinds.count("daemon") >= 3
    assert kinds.count("job") >= 3

"""Every configuration that the docs print starts: it is read, and its feeds make a chain of one basis."""

import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.http_server import Reply
from support.manual_clock import ManualClock
from support.parsers import URL, FromMemory
from support.providers.case import world
from support.providers.energy_charts import ENERGY_CHARTS

from carbonsched.clock import SystemClock
from carbonsched.config import Config
from carbonsched.errors import InputError
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


DESIGNED = """
state_dir = "/var/lib/carbonsched"
pue = 1.2
[zone]
name = "DE"; basis = "average-lifecycle"
[[feeds]]
provider = "energy-charts"; country = "de"; max_age = "2h"
[[feeds]]
provider = "static"
[power]
gpu = "nvml"; host = "auto"; tick_s = 1
[api]
socket = "/run/carbonsched/api.sock"; tcp = ""
[ledger]
url = "sqlite:////var/lib/carbonsched/ledger.db"
""".replace("; ", "\n")
"""The design's example, of which its readers copy the beginning."""


def test_the_designed_config_starts_and_says_whose_word_the_basis_is(tmp_path: Path) -> None:
    config = Config.parse(tomllib.loads(DESIGNED), where="box.toml", folder=tmp_path)
    case = ENERGY_CHARTS
    clock = ManualClock(datetime(2026, 3, 12, 10, 20, tzinfo=UTC))
    true = world(clock.now(), case.step)
    site = Site(config.zone, clock, tmp_path, FromMemory(lambda path: case.answer(true, path)))
    feeds = [feed.model_copy(update={"url": URL}) if i == 0 else feed for i, feed in enumerate(config.feeds)]
    chain = build_chain(feeds, site)
    chain.poll_due()
    live = chain.view(24).now
    assert (live.provider, live.basis) == ("energy-charts", "average-lifecycle")
    assert live.note == "basis as the config states it, the provider does not"
    site = Site(config.zone, clock, tmp_path, FromMemory(lambda path: Reply(b"", 503)))
    chain = build_chain(feeds, site)
    chain.poll_due()
    constant = chain.view(24).now
    assert (constant.provider, constant.kind) == ("static", "fallback")
    assert constant.note.startswith("codecarbon, mean mix of Germany")
    data = tomllib.loads(DESIGNED.replace('tcp = ""', 'tcp = "0.0.0.0:80"'))
    with pytest.raises(
        InputError, match=r"api\.tcp: '0.0.0.0:80' is no loopback address with a port; write 127"
    ):
        Config.parse(data, where="box.toml", folder=tmp_path)


def test_the_blocks_are_found() -> None:
    kinds = [kind(tomllib.loads(text)) for text, _ in BLOCKS.values()]
    assert kinds.count("daemon") >= 3
    assert kinds.count("job") >= 3

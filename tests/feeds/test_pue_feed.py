"""What a Prometheus says of the PUE: taken, or refused in words."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.http_server import Reply, serve
from support.manual_clock import ManualClock

from carbonsched.config import Config
from carbonsched.errors import InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.pue_feed import build_pue_feed
from carbonsched.feeds.zone import Zone

NOW = datetime(2026, 7, 3, 12, 21, tzinfo=UTC)
FEEDS = [{"provider": "static", "g_per_kwh": 400, "basis": "average-lifecycle", "source": "bill"}]


def config(**keys: object) -> Config:
    return Config.parse({"feeds": FEEDS, "pue_feed": {"query": "avg(pue)", **keys}}, "box.toml")


@pytest.mark.parametrize(
    ("said", "pue", "why"),
    [
        ("1.18", 1.18, ""),
        ("1", 1.0, ""),
        ("0.98", None, "one lies between 1 and 10"),
        ("118", None, "one lies between 1 and 10"),
        ("NaN", None, "finite"),
        ("0_1.4", None, "'0_1.4' is not a number"),
    ],
)
def test_a_pue_is_taken_or_refused(tmp_path: Path, said: str, pue: float | None, why: str) -> None:
    data = {
        "resultType": "vector",
        "result": [{"metric": {}, "value": [NOW.replace(minute=20).timestamp(), said]}],
    }
    with serve(lambda _: Reply(json.dumps({"status": "success", "data": data}).encode())) as server:
        chain = build_pue_feed(
            config(url=server.url).pue_feed, Site(Zone(name="DE"), ManualClock(NOW), tmp_path)
        )
        assert chain is not None
        chain.poll_due()
    reading = chain.reading_at(NOW)
    assert (None if reading is None else reading.pue) == pue
    [status] = chain.status()
    assert why in (status.error or "")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "pue_feed.url: is missing"),
        ({"url": "http://127.0.0.1:9", "query": ""}, "pue_feed.query"),
        ({"url": "http://127.0.0.1:9", "quary": "x"}, "pue_feed.quary"),
        ({"url": "http://127.0.0.1:9", "provider": "static"}, "pue_feed.provider"),
        ({"url": "http://127.0.0.1:9", "max_age": -1}, "pue_feed.max_age"),
    ],
)
def test_bad_keys_are_refused_by_their_name(keys: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as told:
        config(**keys)
    assert words in str(told.value)


def test_without_the_table_there_is_no_feed() -> None:
    assert build_pue_feed(None, Site(Zone(), ManualClock(NOW), Path())) is None

"""The feeds without a key against the real providers: only with CARBONSCHED_LIVE=1, for whoever has a network."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from carbonsched.clock import SystemClock
from carbonsched.config import FEEDS
from carbonsched.feeds.base import Site
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.zone import Zone

pytestmark = pytest.mark.skipif(
    os.environ.get("CARBONSCHED_LIVE") != "1", reason="asks the real providers: set CARBONSCHED_LIVE=1"
)

FREE: tuple[tuple[str, dict[str, Any], float], ...] = (
    ("GB", {"provider": "neso"}, 24.0),
    ("GB", {"provider": "neso", "region": 13}, 24.0),
    ("GB", {"provider": "neso", "postcode": "EH8"}, 24.0),
    ("DE", {"provider": "energy-charts", "country": "de"}, 0.0),
    ("FR", {"provider": "energy-charts", "country": "fr"}, 0.0),
    ("DK-DK1", {"provider": "energi-data-service", "price_area": "DK1"}, 0.5),
    ("FR", {"provider": "rte"}, 0.0),
)
"""(zone, keys, hours that its forecast reaches at least)."""


@pytest.mark.parametrize(("zone", "keys", "ahead_h"), FREE, ids=lambda each: str(each)[:60])
def test_a_feed_without_a_key_tells_what_holds_now(
    zone: str, keys: dict[str, Any], ahead_h: float, tmp_path: Path
) -> None:
    settings = FEEDS.model(keys["provider"]).model_validate(keys)
    site = Site(Zone(name=zone), SystemClock(), tmp_path)
    feed = settings.build(site)
    chain = Chain([feed], Zone(name=zone, basis=feed.basis), site.clock)
    chain.poll_due()
    [status] = chain.status()
    now = datetime.now(UTC)
    reading = chain.reading_at(now)
    assert reading is not None, status.error
    assert 0 <= reading.g_per_kwh <= 1500
    assert reading.start <= now < reading.end
    assert (tmp_path / "bodies" / f"{reading.source.body_sha256}.gz").exists()
    if ahead_h:
        forecast = chain.forecast()
        assert forecast is not None
        assert forecast.points[-1].end >= now + timedelta(hours=ahead_h)

"""`grid` and `grid --probe` with prices: what a person reads, and what a script does."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.command import cli
from support.http_server import Reply, serve

from carbonsched.cli.grid_prices import show
from carbonsched.model.grid import FeedStatus, Kind, Price, PricePoint, PriceView, Source

CONFIG = """\
state_dir = "{folder}/state"
[[feeds]]
provider = "static"
country = "DEU"
[[prices]]
provider = "energy-charts"
zone = "DE-LU"
url = "{url}"
[[prices]]
provider = "static"
eur_per_kwh = 0.31
source = "contract"
"""


def series() -> bytes:
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    axis = [round((start + timedelta(minutes=15 * i)).timestamp()) for i in range(48)]
    document = {"unix_seconds": axis, "price": [-7.5] * 48, "unit": "EUR / MWh", "license_info": "CC BY 4.0"}
    return json.dumps(document).encode()


@pytest.mark.parametrize(("reply", "code"), [(Reply(series()), 0), (Reply(b"{}", 500), 1)])
def test_every_source_is_probed(tmp_path: Path, reply: Reply, code: int) -> None:
    with serve(lambda _: reply) as server:
        (tmp_path / "config.toml").write_text(CONFIG.format(folder=tmp_path, url=server.url))
        ran = cli("grid", "--probe", "--config", tmp_path / "config.toml", "--json")
        shown = cli("grid", "--probe", "--config", tmp_path / "config.toml")
    assert (ran.code, shown.code) == (code, code)
    market, tariff = ran.doc["prices"]
    assert (tariff["ok"], tariff["value"], tariff["kind"]) == (True, 0.31, "fallback")
    assert market["ok"] is (code == 0)
    assert "EUR/kWh" in shown.out
    if code:
        assert "HTTP 500" in market["error"]
        assert "FAILS" in shown.out
    else:
        assert market["value"] == pytest.approx(-0.0075)
        assert 10 < market["horizon_h"] <= 12


def test_a_person_reads_the_price_now_and_ahead(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 11, 28, 12, tzinfo=UTC)
    source = Source(provider="energy-charts", zone="DE-LU", kind=Kind.ACTUAL, fetched_at=at, note="CC BY 4.0")
    hours = [at + timedelta(hours=h) for h in range(4)]
    ahead = tuple(
        PricePoint(start=start, end=start + timedelta(hours=1), eur_per_kwh=value)
        for start, value in zip(hours, (0.08, -0.02, 0.3, 0.1), strict=True)
    )
    status = FeedStatus(name="energy-charts", state="ok", last_success=at, error=None)
    now = Price.of(at, hours[1], 0.08, source)
    show(PriceView(now=now, reason=None, ahead=ahead, feeds=(status,)))
    show(PriceView(now=None, reason="no source knows the price now", ahead=(), feeds=(status,)))
    out = capsys.readouterr().out
    assert "PRICE  0.08 EUR/kWh (energy-charts, actual, CC BY 4.0) until" in out
    assert "-0.02 to 0.3 EUR/kWh" in out
    assert "PRICE  not known: no source knows the price now" in out

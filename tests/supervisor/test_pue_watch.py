"""Which PUE counts, on whose word: the feed's, the hour's, the year's; in rows as in plans."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.http_server import Reply, serve
from support.rig import START, Rig, spec

from carbonsched.ledger.rows import moment
from carbonsched.units import grams


@contextmanager
def measured(pue: dict[float, str]) -> Iterator[str]:
    """A Prometheus whose PUE begins at these times."""

    def answer(path: str) -> Reply:
        if "query_range" in path:
            return Reply(
                json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}}).encode()
            )
        at = float(parse_qs(urlsplit(path).query)["time"][0])
        said = next(value for since, value in sorted(pue.items(), reverse=True) if at >= since)
        data = {"resultType": "vector", "result": [{"metric": {}, "value": [at, said]}]}
        return Reply(json.dumps({"status": "success", "data": data}).encode())

    with serve(answer) as server:
        yield server.url


def test_the_feed_holds_then_the_hours_then_the_years(tmp_path: Path) -> None:
    later = START + timedelta(hours=3)
    hours = [{"hours": [f"{later:%H:%M}-24:00"], "pue": 1.5, "source": "BMS"}]
    with measured({0.0: "1.1", (START + timedelta(minutes=5)).timestamp(): "1.3"}) as url:
        feed = {"url": url, "query": "pue", "max_age": "10m", "every": "60s", "name": "dcim"}
        rig = Rig(
            tmp_path,
            extra={"pue": 1.2, "pue_source": "report", "pue_feed": feed, "pue_hours": hours},
        )
        job = rig.running(spec(budget_g=1e6))
        job.ready(0)
        for _ in range(7):
            rig.supervisor.pue.poll()
            rig.run(60)
    assert rig.supervisor.pue.at(rig.clock.now())[0] == 1.3
    assert rig.supervisor.control.estimates.config().pue == 1.3, "plans reckon with the one of now"
    rig.run(20 * 60)
    assert rig.supervisor.pue.at(rig.clock.now()) == (1.2, "report"), "the feed is silent for too long"
    assert rig.supervisor.pue.at(later) == (1.5, "BMS")
    rig.supervisor.flush()
    rows = [row for row in rig.ledger.rows() if row["energy_mj"]]
    assert list(dict.fromkeys(row["pue"] for row in rows)) == [1.1, 1.3, 1.2]
    assert {row["pue_source"].partition(";")[0] for row in rows} == {"dcim", "report"}
    for row in rows:
        assert row["grams"] == pytest.approx(grams(row["energy_mj"] / 1000, row["g_per_kwh"], row["pue"]))
    change = START + timedelta(minutes=5)
    assert not any(moment(row["start_us"]) < change < moment(row["end_us"]) for row in rows)
    assert rig.ledger.verify().ok


def test_a_feed_that_fails_is_in_the_journal(tmp_path: Path) -> None:
    with measured({0.0: "0.5"}) as url:
        rig = Rig(tmp_path, extra={"pue_feed": {"url": url, "query": "pue"}})
        rig.supervisor.pue.poll()
        rig.run(120)
    told = [entry for entry in rig.ledger.history(None, kinds=("feed",)) if entry.get("of") == "pue"]
    assert [(entry["name"], entry["state"]) for entry in told] == [("prometheus", "failing")]
    assert rig.supervisor.pue.at(rig.clock.now())[0] == 1.0

"""`grid --probe`: each feed once over real HTTP, as the daemon would ask it; a failure is a row, and exit code 1."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.command import cli
from support.http_server import Reply, serve

STATIC = '[[feeds]]\nprovider = "static"\ng_per_kwh = 150\nbasis = "average-direct"\nsource = "a bill"\n'
ZONE = '[zone]\nname = "GB"\nbasis = "average-direct"\n'


def halves(first: int, last: int) -> bytes:
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rows = [
        {
            "from": f"{start + timedelta(minutes=30 * i):%Y-%m-%dT%H:%MZ}",
            "to": f"{start + timedelta(minutes=30 * i + 30):%Y-%m-%dT%H:%MZ}",
            "intensity": {"forecast": 200 + i, "actual": None},
        }
        for i in range(first, last)
    ]
    return json.dumps({"data": rows}).encode()


def write(folder: Path, feeds: str) -> Path:
    path = folder / "config.toml"
    path.write_text(f'state_dir = "{folder}/state"\n{ZONE}{feeds}')
    return path


def test_every_feed_is_asked_even_behind_a_healthy_one(tmp_path: Path) -> None:
    with serve(lambda path: Reply(halves(0, 2) if path == "/intensity" else halves(0, 96))) as server:
        path = write(tmp_path, f'[[feeds]]\nprovider = "neso"\nurl = "{server.url}"\n{STATIC}')
        ran = cli("grid", "--probe", "--config", path, "--json")
    assert ran.code == 0
    neso, static = ran.doc["feeds"]
    assert (neso["name"], neso["ok"], neso["error"], neso["basis"]) == ("neso", True, None, "average-direct")
    assert 200 <= neso["value"] <= 201
    assert 46 < neso["horizon_h"] <= 48
    assert 0 < neso["latency_s"] < 5
    assert (static["ok"], static["value"], static["horizon_h"]) == (True, 150, None)
    assert static["kind"] == "fallback", "as the chain has it: neso stands before it"
    assert not (tmp_path / "state").exists(), "a probe keeps nothing"


def test_what_the_token_may_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EM_TOKEN", "canary-7f")
    zones = {
        "DK-DK2": {"access": ["carbon-intensity/latest", "carbon-intensity/\x1b[2J\n", "power/latest"]},
        "SE": {"access": []},
        "FR": {},
    }
    with serve(lambda path: Reply(json.dumps(zones if path == "/v4/zones" else {}).encode())) as server:
        path = tmp_path / "config.toml"
        keys = f'zone = "DK-DK2"\ntoken_env = "EM_TOKEN"\nurl = "{server.url}"\n'
        path.write_text(f'[zone]\nname = "DK-DK2"\n[[feeds]]\nprovider = "electricity-maps"\n{keys}')
        ran = cli("grid", "--probe", "--config", path, "--json")
    [row] = ran.doc["feeds"]
    assert row["may_read"] == "DK-DK2: latest, \\x1b[2J ; zones in all: 1", (
        "what a provider says moves no cursor"
    )
    assert server.headers[server.paths.index("/v4/zones")]["auth-token"] == "canary-7f"
    assert "canary" not in ran.out


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(status=403, body=b"<html>", type="text/html"), "403"),
        (Reply(b'{"data": []}'), "the answer holds no value"),
        (Reply(b"{"), "JSON"),
    ],
)
def test_a_failure_is_a_row_and_1(tmp_path: Path, reply: Reply, says: str) -> None:
    with serve(lambda _: reply) as server:
        path = write(tmp_path, f'[[feeds]]\nprovider = "neso"\nurl = "{server.url}"\n{STATIC}')
        ran = cli("grid", "--probe", "--config", path, "--json")
        shown = cli("grid", "--probe", "--config", path)
    assert (ran.code, shown.code) == (1, 1)
    assert (ran.err, shown.err) == ("", "")
    neso, static = ran.doc["feeds"]
    assert (neso["ok"], neso["value"], static["ok"]) == (False, None, True)
    assert says in neso["error"]
    assert "FAILS" in shown.out


def test_a_feed_that_cannot_be_built_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[zone]\nname = "GD"\n[[feeds]]\nprovider = "static"\ncountry = "Atlantis"\n')
    ran = cli("grid", "--probe", "--config", path, "--json")
    assert ran.code == 1
    [row] = ran.doc["feeds"]
    assert (row["ok"], row["latency_s"]) == (False, None)
    assert "feeds[0].country: 'Atlantis' is not a country's code or name" in row["error"]


def test_a_basis_that_does_not_fit_is_told_of_the_feed_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    feeds = "".join(f'[[feeds]]\nprovider = "{name}"\n' for name in ("energy-charts", "rte"))
    path.write_text('[zone]\nname = "FR"\nbasis = "average-lifecycle"\n' + feeds)
    unstated, direct = cli("grid", "--probe", "--config", path, "--json").doc["feeds"]
    assert "feeds[0].basis: its provider does not state it" in unstated["error"]
    assert "feeds[1]: rte speaks average-direct but zone.basis is" in direct["error"]


def test_a_config_that_is_not_there_is_one_line_and_2() -> None:
    ran = cli("grid", "--probe", "--config", "/nowhere.toml")
    assert (ran.code, ran.out) == (2, "")
    assert "--config: there is no file /nowhere.toml" in ran.err


def test_two_feeds_of_one_name_are_refused_as_by_the_daemon(tmp_path: Path) -> None:
    feed = '[[feeds]]\nprovider = "static"\ng_per_kwh = 1\nbasis = "average-direct"\nsource = "x"\n'
    ran = cli("grid", "--probe", "--config", str(write(tmp_path, 2 * feed)))
    assert (ran.code, ran.out) == (2, "")
    assert "feeds[1].name: 'static' is taken by a feed before; give each feed its own name" in ran.err


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('[[prices]]\nprovider = "static"\neur_per_kwh = 1\nsource = "x"\n',
         "prices[1].name: 'static' is taken by a source of prices before; give each source of prices its own name"),
        ('[[supply]]\nprovider = "static"\nshare = 0.5\ng_per_kwh = 1\nsource = "x"\n',
         "supply[1].name: 'static' is taken by a source of supply before; give each source of supply its own name"),
    ],
)  # fmt: skip
def test_two_sources_of_one_name_are_told_by_what_they_are(tmp_path: Path, source: str, words: str) -> None:
    feed = '[[feeds]]\nprovider = "static"\ng_per_kwh = 1\nbasis = "average-direct"\nsource = "x"\n'
    ran = cli("grid", "--probe", "--config", str(write(tmp_path, feed + 2 * source)))
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err


def test_the_sites_own_supply_is_asked_too(tmp_path: Path) -> None:
    (tmp_path / "roof.csv").write_text("datetime,kw\n2026-01-01T00:00Z,1.5\n2026-01-01T01:00Z,1.5\n")
    roof = '[[supply]]\nprovider = "replay"\nfile = "roof.csv"\nunit = "kw"\nkind = "solar"\n'
    dead = '[[supply]]\nprovider = "prometheus"\nurl = "http://127.0.0.1:9"\nquery = "pv"\nkind = "solar"\n'
    path = write(tmp_path, STATIC + roof)
    ran = cli("grid", "--probe", "--config", path, "--json")
    [found] = ran.doc["supply"]
    assert (ran.code, found["ok"], found["amount"], found["unit"], found["g_per_kwh"]) == (
        0,
        True,
        1.5,
        "kw",
        0.0,
    )
    assert "direct, IPCC AR5" in found["note"]
    assert "1.5 kW" in cli("grid", "--probe", "--config", path).out
    path = write(tmp_path, STATIC + dead + roof.replace("roof.csv", "none.csv"))
    ran = cli("grid", "--probe", "--config", path, "--json")
    assert (ran.code, [each["ok"] for each in ran.doc["supply"]]) == (1, [False, False])
    assert "none.csv" in ran.doc["supply"][1]["error"]
    assert not (tmp_path / "state").exists(), "a probe keeps nothing"

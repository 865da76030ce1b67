"""The config file: each key is checked by the component that reads it, and what is refused is one line with a hint."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from support.fuzz import CHANGES, EDITS, FUZZ, changed, damaged, read_or_refuse
from support.plugins import install
from support.providers import CASES

from carbonsched.config import FEEDS, PRICES, SUPPLIES, Config, load
from carbonsched.errors import InputError
from carbonsched.feeds.replay import ReplaySettings
from carbonsched.power.config import METERS, PowerConfig

VALID: dict[str, dict[str, Any]] = {
    "replay": {"provider": "replay", "file": "trace.csv"},
    "static": {"provider": "static", "country": "DEU"},
} | {case.name: {"provider": case.name} | case.keys for case in CASES}
_SUPPLY = {"g_per_kwh": 0.0, "source": "mine"}
EXTRA: dict[tuple[str, str], dict[str, Any]] = {
    ("prices", "static"): {"eur_per_kwh": 0.1, "source": "mine"},
    ("supply", "static"): _SUPPLY | {"share": 0.5},
    ("supply", "replay"): _SUPPLY | {"file": "trace.csv"},
    ("supply", "prometheus"): _SUPPLY | VALID["prometheus"],
}


def settings(table: str, name: str, model: Any) -> dict[str, Any]:
    """Valid ones of a source of this table; a provider may have fewer keys as one of prices."""
    given = EXTRA.get((table, name)) or VALID.get(name, {})
    return {key: value for key, value in given.items() if key in model.model_fields} | {"provider": name}


CHOICES = " or ".join([", ".join(map(repr, list(FEEDS.built_in)[:-1])), repr(list(FEEDS.built_in)[-1])])
PLUGIN = """
from typing import Literal
from carbonsched.feeds.base import FeedSettings
from carbonsched.power.base import MeterSettings

class Sun(FeedSettings):
    provider: Literal["sun"]
    panels: int = 1
    def build(self, site):
        raise RuntimeError("no sun")

class Misnamed(FeedSettings):
    provider: Literal["moon"]
    def build(self, site): ...

class Unbuilt(FeedSettings):
    provider: Literal["unbuilt"]

class Tide(MeterSettings):
    provider: Literal["tide"]
    tide_w: float
    def build(self, clock): ...
"""


def refused(*feeds: object, power: dict[str, Any] | None = None) -> str:
    with pytest.raises(InputError) as caught:
        Config.parse({"feeds": list(feeds), "power": power or {}}, "box.toml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


FOREIGN = [
    (name, key, other)
    for name, model in FEEDS.built_in.items()
    for other, theirs in FEEDS.built_in.items()
    for key in theirs.model_fields
    if key not in model.model_fields
]


@pytest.mark.parametrize(("provider", "key", "other"), FOREIGN)
def test_a_key_of_another_provider_is_refused_with_what_this_one_takes(
    provider: str, key: str, other: str
) -> None:
    line = refused(VALID[provider] | {key: 1})
    assert line.startswith(
        f"box.toml: feeds[0].{key}: is not a key of provider {provider!r}; drop it; it takes "
    )


@pytest.mark.parametrize(
    ("feed", "words"),
    [
        ({}, "box.toml: feeds[0].provider: is missing; add it"),
        (
            {"provider": "nesso"},
            f"feeds[0].provider: must be {CHOICES}, is 'nesso'; did you mean 'neso'?",
        ),
        ({"provider": ["neso"]}, f"feeds[0].provider: must be {CHOICES}"),
        ({"provider": "neso", "timeot": 3}, "feeds[0].timeot: unknown key; did you mean 'timeout'?"),
        (
            {"provider": "neso", "region": 99},
            "box.toml: feeds[0].region: must be 17 or less",
        ),
        ({"provider": "neso", "max_age": "soon"}, "box.toml: feeds[0].max_age: "),
        (3, "box.toml: feeds[0]: must be a table of keys, is 3"),
        (
            {"provider": "static", "g_per_kwh": 1.0, "source": "x", "basis": "marginal-direct"},
            "box.toml: feeds[0] speaks marginal-direct but",
        ),
    ],
)
def test_what_is_wrong_with_a_feed_is_said_in_one_line(feed: object, words: str) -> None:
    assert words in refused(feed)


@pytest.mark.parametrize(
    "url",
    [
        "http://u:p@SECRET@127.0.0.1:1/x",
        "HTTP://u:SECRET@127.0.0.1:1",
        "https://SECRET@host",
        "http://u:1/SECRET@host",
        "http://host/#SECRET",
        "http://host?token=SECRET",
        "file:///etc/SECRET",
        "SECRET",
        "",
        "http://",
        "http://:80/SECRET",
        "http://[SECRET",
        "http://host:SECRET",
        "http://host:99999",
        "http://host/SE CRET",
        "http://host/SECRET\n",
        "http://host\\SECRET",
    ],
)
def test_an_address_that_holds_a_secret_or_is_none_is_refused_and_not_repeated(url: str) -> None:
    for table, feeds in (("feeds", FEEDS), ("prices", PRICES), ("supply", SUPPLIES)):
        for name, model in feeds.built_in.items():
            if "url" not in model.model_fields:
                continue
            known = {
                "feeds": [VALID["static"]],
                table: [settings(table, name, model) | {"url": url}],
            }
            with pytest.raises(InputError) as caught:
                Config.parse(known, "box.toml")
            line = str(caught.value)
            assert line.startswith(f"box.toml: {table}[0].url: ")
            assert "write it like http://10.0.0.2:9090" in line
            assert "SECRET" not in line
            assert ("token_file" in line) == ("token_file" in model.model_fields)
            assert ("password_file" in line) == ("password_file" in model.model_fields)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9090", "HTTPS://host/api/v1/", "http://[::1]:80", "http://münchen.example"]
)
def test_a_bare_address_is_taken(url: str) -> None:
    [feed] = Config.parse({"feeds": [VALID["neso"] | {"url": url}]}).feeds
    assert feed.model_dump()["url"] == url


@pytest.mark.parametrize("value", [0, 0.0, -1, "0s", 1e300, "4000d"])
def test_a_duration_that_cannot_be_is_refused_by_its_key(value: object) -> None:
    tried = 0
    for table, feeds in (("feeds", FEEDS), ("prices", PRICES), ("supply", SUPPLIES)):
        for name, model in feeds.built_in.items():
            known = settings(table, name, model)
            for key in ("every", "max_age", "timeout", "step"):
                if key not in model.model_fields:
                    continue
                tried += 1
                with pytest.raises(InputError, match=rf"^box.toml: {table}\[0\].{key}: "):
                    Config.parse({"feeds": [VALID["static"]], table: [known | {key: value}]}, "box.toml")
    assert tried > 40
    for table, key in (
        ("plan", "horizon"),
        ("launch", "stop_s"),
        ("power", "tick_s"),
    ):
        with pytest.raises(InputError, match=rf"^box.toml: {table}.{key}: "):
            Config.parse({"feeds": [VALID["static"]], table: {key: value}}, "box.toml")


def test_a_request_may_take_a_minute_at_most() -> None:
    assert "feeds[0].timeout: must be 60 or less, is '61s'" in refused(VALID["neso"] | {"timeout": "61s"})


@pytest.mark.parametrize(
    ("power", "words"),
    [
        ({"gpu": "nvm"}, "power.gpu: must be 'auto', 'nvml', 'amd', 'intel', 'replay' or 'none', is 'nvm'; did you mean 'nvml'?"),
        ({"host": "replay"}, "power.host: must be 'auto', 'codecarbon' or 'none', is 'replay'"),
        ({"gpu": "replay"}, "power.replay_file: is missing; give a CSV of seconds,watts"),
        ({"gpu": "none", "replay_file": "w"}, 'power.replay_file: is read only with power.gpu = "replay"; set that or drop it'),
        ({"gpu": "intel", "sample_hz": 5}, 'power.sample_hz: is read only with power.gpu = "auto", "nvml" or "amd"; set that or drop it'),
        ({"host_idle": "nobody"}, "power.host_idle: must be 'jobs' or 'box', is 'nobody'"),
        ({"gpu": "replay", "replay_file": 3}, "power.replay_file: must be text, is 3; put it in quotes"),
        ({"tik_s": 1}, "power.tik_s: unknown key; did you mean 'tick_s'?"),
        ({"zzz": 1}, "power.zzz: unknown key; known keys here: boards, clocks, clocks_socket, gpu, host, host_idle, sample_hz, tick_s"),
        ({"provider": "nvml"}, "power.provider: unknown key"),
        ({"tick_s": 0}, "power.tick_s: must be above 0 and 60 at most, is 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_power_is_said_in_one_line(power: dict[str, Any], words: str) -> None:
    assert words in refused(VALID["neso"], power=power)


def test_relative_paths_are_read_from_the_files_folder(tmp_path: Path) -> None:
    file = tmp_path / "box.toml"
    file.write_text(
        'state_dir = "state"\n[[feeds]]\nprovider = "replay"\nfile = "a/t.csv"\n'
        '[power]\ngpu = "replay"\nreplay_file = "/w.csv"\n[api]\nsocket = "api.sock"\n'
    )
    config = load(file)
    [feed] = config.feeds
    assert isinstance(feed, ReplaySettings)
    assert feed.file == str(tmp_path / "a/t.csv")
    assert (config.state, config.api.socket) == (tmp_path / "state", str(tmp_path / "api.sock"))
    assert config.power.meters[0].model_dump() == {
        "provider": "replay",
        "replay_file": "/w.csv",
        "replay_boards": 1,
    }


def test_a_config_is_read_without_the_libraries_of_feeds_and_meters() -> None:
    heavy = ("requests", "codecarbon", "pynvml", "numpy", "sqlalchemy")
    code = f"import sys, carbonsched.config; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_plugins_feed_and_meter_stand_beside_the_built_in_ones(site: Path) -> None:
    groups = {
        "carbonsched.feeds": {"sun": "sky:Sun", "neso": "sky:Sun", "none-such": "no_module:X"},
        "carbonsched.power": {"tide": "sky:Tide", "replay": "sky:Tide", "none": "sky:Tide"},
    }
    install(site, "sky", groups, sky=PLUGIN)
    power = {"gpu": "none", "host": "tide", "tide_w": 7}
    config = Config.parse({"feeds": [{"provider": "sun", "panels": 3}, VALID["neso"]], "power": power})
    sun, neso = config.feeds
    assert sun.model_dump()["panels"] == 3
    assert type(neso) is FEEDS.built_in["neso"]
    assert [meter.model_dump() for meter in config.power.meters] == [{"provider": "tide", "tide_w": 7.0}]
    assert (FEEDS.plugins(), METERS["gpu"].plugins()) == (("none-such", "sun"), ("tide",))
    assert "feeds[0].panls: unknown key; did you mean 'panels'?" in refused({"provider": "sun", "panls": 3})
    assert "box.toml: power.tide_w: is missing; add it" in refused(VALID["neso"], power={"host": "tide"})
    both = {"gpu": "tide", "host": "tide", "tide_w": 7}
    assert "power.host: 'tide' is power.gpu's meter too; name it once" in refused(VALID["neso"], power=both)
    assert f"{list(FEEDS.built_in)[-1]!r}, 'none-such' or 'sun'" in refused({"provider": "snu"})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("no_module:X", "cannot be imported: ModuleNotFoundError"),
        ("sky2:PLUGIN", "cannot be imported: AttributeError"),
        ("sky2:Tide", "is not a subclass of carbonsched.feeds.base.FeedSettings"),
        ("sky2:Misnamed", "must declare `provider: Literal['cloud']`, the name of its entry point"),
    ],
)
def test_a_plugin_of_the_wrong_shape_is_refused_only_where_it_is_asked_for(
    site: Path, entry: str, words: str
) -> None:
    install(site, "sky2", {"carbonsched.feeds": {"cloud": entry}}, sky2=PLUGIN)
    assert Config.parse({"feeds": [VALID["neso"]]}).feeds[0].provider == "neso"
    line = refused({"provider": "cloud"})
    assert words in line
    assert line.startswith("plugin 'cloud' of sky2 (carbonsched.feeds): ")
    assert line.endswith("fix or uninstall sky2")


def test_a_plugin_without_a_build_is_refused(site: Path) -> None:
    install(site, "sky3", {"carbonsched.feeds": {"unbuilt": "sky3:Unbuilt"}}, sky3=PLUGIN)
    assert "sky3:Unbuilt has no method build of its own" in refused({"provider": "unbuilt"})


def test_without_a_word_the_usual_meters_are_meant() -> None:
    assert [type(meter).__name__ for meter in PowerConfig().meters] == ["NvmlSettings", "HostSettings"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("pue = " + "[" * 5000, "is nested too deep"), ("pue = " + "9" * 5000, "is not TOML: "), ("pue = '", "is not TOML: ")],
)  # fmt: skip
def test_a_file_that_cannot_be_parsed_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "box.toml").write_text(text)
    with pytest.raises(InputError, match=f"--config: .*box.toml {words}"):
        load(tmp_path / "box.toml")


# ---- fuzz

CONFIG: dict[str, Any] = {
    "state_dir": "/var/lib/carbonsched",
    "pue": 1.2,
    "zone": {"name": "GB", "basis": "average-direct", "worst_g_per_kwh": 900.0},
    "feeds": [
        {"provider": "neso", "region": 13, "max_age": "2h", "every": 300},
        {"provider": "replay", "file": "trace.csv", "hour_s": 4.0, "anchor": "2026-01-01T00:00:00Z"},
        {"provider": "static", "country": "GBR", "basis": "average-direct"},
    ],
    "power": {"gpu": "replay", "replay_file": "watts.csv", "host": "auto", "tick_s": 1.0},
    "api": {"socket": "run/api.sock"},
    "ledger": {"url": "sqlite:///ledger.db", "row_s": 10.0},
    "launch": {"python": "/usr/bin/python3", "slots": 2, "stop_s": "2m"},
    "plan": {"lease_s": 300.0, "quantile": 0.95, "horizon": "48h"},
    "pools": [{"name": "lab", "budget_g": 500.0}],
}


@pytest.mark.fuzz
@FUZZ
@given(edits=EDITS)
def test_any_bytes_in_a_config_are_read_or_refused(
    tmp_path: Path, tried: Callable[[], None], edits: list[tuple[int, int, bytes]]
) -> None:
    file = tmp_path / "box.toml"
    for data in damaged(tomli_w.dumps(CONFIG).encode(), edits):
        file.write_bytes(data)
        read_or_refuse(lambda: load(file))
        tried()


@pytest.mark.fuzz
@FUZZ
@given(changes=CHANGES)
def test_any_values_in_a_config_are_read_or_refused(
    tried: Callable[[], None], changes: list[tuple[int, Any, str]]
) -> None:
    for document in changed(CONFIG, changes):
        read_or_refuse(partial(Config.parse, document, "box.toml", Path("/")))
        tried()


@pytest.mark.parametrize(("pue", "problem"), [(12, "must be 1 to 10"), (0.9, "must be 1 to 10")])
def test_a_pue_that_no_facility_has_is_refused_as_that_of_hours_is(pue: float, problem: str) -> None:
    for stated in ({"pue": pue}, {"pue_hours": [{"pue": pue, "source": "BMS"}]}):
        with pytest.raises(InputError, match=problem):
            Config.parse({"feeds": [VALID["neso"]], **stated}, "box.toml")

"""The files under examples/ are what their makers make, fit for use, and honest about what they are."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from carbonsched import config
from carbonsched.model.job_file import read_job

EXAMPLES = Path(__file__).parents[2] / "examples"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def rows(name: str) -> list[dict[str, str]]:
    lines = (EXAMPLES / "debian-pairs" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_pairs_are_complete_short_and_never_held_out_and_trained_on() -> None:
    pairs = script("make_debian_pairs")
    train, dev = rows("train"), rows("dev")
    assert (len(train), len(dev)) == (pairs.TRAIN, pairs.DEV)
    for row in train + dev:
        assert row.keys() == {"package", "source", "target"}
        assert row["source"].endswith((".", "!"))
        assert pairs.units(row["source"]) + pairs.units(row["target"]) <= pairs.MAX_UNITS
    for key in ("package", "source"):
        assert not {row[key] for row in train} & {row[key] for row in dev}
    assert len({row["source"] for row in train}) == len(train)


LISTING = """\
Package: {name}
Description-md5: 0
Description-en: {name} shows the weather
 {name} shows the weather of any town on earth, for today and for the week that follows.
 It is small. {long}
 .
 A second paragraph, which is left out.
"""


def test_the_same_lists_give_the_same_pairs_whatever_their_order(tmp_path: Path) -> None:
    pairs = script("make_debian_pairs")
    stanzas = [LISTING.format(name=f"Tool{i}", long="It has words. " * 40) for i in range(600)]
    made = pairs.pairs(["\n".join(stanzas)], 544)
    assert made == pairs.pairs(["\n".join(reversed(stanzas))], 544)
    first = made[0]
    assert first.target == f"{first.package} shows the weather"
    assert "second paragraph" not in first.source
    assert "earth, for today and for the week that follows. It is small." in first.source

    (tmp_path / "list").write_text("\n".join(stanzas))
    pairs.main([str(tmp_path / "list"), "--out", str(tmp_path / "out")])
    written = [json.loads(line) for line in (tmp_path / "out" / "dev.jsonl").read_text().splitlines()]
    assert [row["package"] for row in written] == [pair.package for pair in made[:64]]


def test_lists_that_hold_too_little_say_so() -> None:
    pairs = script("make_debian_pairs")
    twice = LISTING.format(name="Weatherman", long="") + "\n" + LISTING.format(name="Weatherman", long="")
    with pytest.raises(SystemExit, match="only 1 usable pairs"):
        pairs.pairs([twice], 2)


def test_the_grid_week_is_what_its_maker_makes(tmp_path: Path) -> None:
    made = tmp_path / "week.csv"
    subprocess.run([sys.executable, str(EXAMPLES / "make_grid_week.py"), str(made)], check=True)
    assert made.read_bytes() == (EXAMPLES / "grid-week.csv").read_bytes()


def test_the_grid_week_swings_daily_and_its_forecast_errs_plausibly() -> None:
    with (EXAMPLES / "grid-week.csv").open() as file:
        week = list(csv.DictReader(file))
    assert len(week) == 168
    values = [float(row["g_per_kwh"]) for row in week]
    said = [float(row["forecast_g_per_kwh"]) for row in week]
    for day in range(7):
        hours = values[24 * day : 24 * day + 24]
        assert max(hours) > 2.5 * min(hours)
        assert 9 <= hours.index(min(hours)) <= 15
    error = sum(abs(a - b) / a for a, b in zip(values, said, strict=True)) / 168
    assert 0.02 < error < 0.15


def test_the_demos_files_are_read_by_daemon_and_command(tmp_path: Path) -> None:
    loaded = config.load(EXAMPLES / "demo.toml")
    (feed,) = loaded.feeds
    assert feed.file is not None
    assert Path(feed.file).is_file()
    assert feed.label == "synthetic"
    assert loaded.zone.name == "XX-SYNTHETIC"
    with (EXAMPLES / "grid-week.csv").open() as file:
        highest = max(float(row["g_per_kwh"]) for row in csv.DictReader(file))
    assert highest < loaded.zone.worst_g_per_kwh

    model = tmp_path / "model"
    model.mkdir()
    text = (EXAMPLES / "job.toml").read_text()
    job = tmp_path / "job.toml"
    job.write_text(
        text.replace("../.demo/models/smollm2-135m", str(model)).replace(
            '"debian-pairs"', f'"{EXAMPLES / "debian-pairs"}"'
        )
    )
    spec = read_job(job)
    assert spec.train.method == "greentrainer"
    assert not spec.carbon.may_pause


def test_the_demos_job_stands_beside_its_data() -> None:
    text = (EXAMPLES / "job.toml").read_text()
    assert 'name_or_path = "debian-pairs"' in text
    assert (EXAMPLES / "debian-pairs" / "dev.jsonl").is_file()

"""What plays back, reads and states values of any kind, shown with prices."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import pytest
from support.manual_clock import ManualClock

from carbonsched.errors import InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.columns import number, read_columns
from carbonsched.feeds.constant import Constant
from carbonsched.feeds.playback import PlaybackKeys, Replay
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Kind, Price, Source

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEADER = "datetime,eur_per_kwh\n"
ANY = number("EUR per kWh, like 0.31", least=None)


class Keys(PlaybackKeys):
    provider: Literal["replay"]


def written(folder: Path, text: str) -> Path:
    file = folder / "prices.csv"
    file.write_text(text)
    return file


def test_a_column_of_any_kind_is_played_back_as_intensities_are(tmp_path: Path) -> None:
    file = written(tmp_path, HEADER + "2026-01-01T00:00Z,0.3\n2026-01-01T01:00Z,-0.1\n")
    clock = ManualClock(T0 + timedelta(seconds=90))
    keys = Keys.parse(
        {"provider": "replay", "file": str(file), "hour_s": 60.0, "anchor": T0, "label": "synthetic"}
    )
    columns = read_columns(file, [("eur_per_kwh",)], ANY)
    replay = Replay(columns, keys, Site(Zone(name="XX"), clock, tmp_path), Price.of)
    [now] = [price for price in replay.poll().readings if price.start <= clock.at < price.end]
    assert (now.eur_per_kwh, now.start, now.end) == (
        -0.1,
        T0 + timedelta(seconds=60),
        T0 + timedelta(seconds=120),
    )
    assert now.grid_start == datetime(2026, 1, 1, 1, tzinfo=UTC)
    source = now.source
    assert (source.kind, source.note, source.time_compression, source.basis) == (
        Kind.ACTUAL,
        "synthetic",
        60,
        None,
    )
    assert source.body_sha256 == columns.sha256[1]


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("datetime,share\n", "line 1", "header"),
        (HEADER + "2026-01-01T00:00Z,nan\n", "line 2", "finite"),
        (HEADER + "2026-01-01T00:00Z,cheap\n", "line 2", "not a number"),
        (HEADER + "2026-01-01T00:00Z,0_1\n", "line 2", "not a number"),
        (HEADER + "2026-01-01T00:00Z,\n", "line 2", "not a number"),
        (HEADER + "2026-01-01T00:00,1\n", "line 2", "time zone"),
        (HEADER + "2026-01-01T00:00Z,1\n2026-01-01T00:00Z,1\n", "line 3", "does not come after"),
        (HEADER + "2026-01-01T00:00Z,1\n", "prices.csv", "holds 1 row"),
    ],
)
def test_a_bad_column_names_its_line(tmp_path: Path, text: str, where: str, problem: str) -> None:
    with pytest.raises(InputError) as told:
        read_columns(written(tmp_path, text), [("eur_per_kwh",)], ANY)
    assert where in told.value.field
    assert problem in told.value.problem


def test_a_number_may_have_limits() -> None:
    share = number("a share, like 0.4", most=1.0)
    assert share("0.4", "x", "share") == 0.4
    for cell in ("-0.1", "1.1", "inf"):
        with pytest.raises(InputError, match="share"):
            share(cell, "x", "share")


def test_a_constant_holds_whatever_the_hour() -> None:
    clock = ManualClock(T0)
    source = Source(provider="tariff", zone="XX", kind=Kind.STATIC, fetched_at=T0, note="the bill")
    tariff = Constant(clock, Price.of, 0.31, source)
    assert [(p.start.year, p.end.year, p.eur_per_kwh) for p in tariff.poll().readings] == [
        (2025, 2026, 0.31),
        (2026, 2027, 0.31),
    ]
    assert tariff.name == "tariff"

"""Forecasts and readings over a restart: what a crash, a full disk, damage and other people's bytes leave of them."""

import json
import logging
import math
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_disk import small_disk

from carbonsched.model.grid import Basis
from carbonsched.plan.forecasting.archive import KeptForecast, ProviderRecord, Series
from carbonsched.supervisor import forecast_file
from carbonsched.supervisor.forecast_file import ForecastFile, Records, forecast_line, readings_line

HOUR = 3_600_000
NOW = 1_700_000_000_000
GB = Series("neso", "GB", Basis.AVERAGE_DIRECT)
FR = Series("wattnet", "FR", Basis.AVERAGE_DIRECT)


def kept(hour: int, value: float = 100.0, points: int = 4) -> KeptForecast:
    at = NOW + hour * HOUR
    highs = array("f", [math.nan] + [value + 9.5] * (points - 1)) if hour % 2 else None
    return KeptForecast(
        at,
        at,
        array("q", [at, HOUR, points]),
        array("f", [value + k / 4 for k in range(points)]),
        highs,
    )


def told(records: Records) -> dict[str, object]:
    """All that records hold, to compare: nan is not itself."""
    return {
        str(series): (
            [
                (r.at, r.issued_at, r.runs, r.values, r.highs and [repr(h) for h in r.highs])
                for r in record.forecasts.rows
            ],
            record.readings,
        )
        for series, record in records.items()
    }


def filled(path: Path, hours: int = 6) -> Records:
    """Two providers' forecasts and readings, as a daemon writes them hour by hour."""
    file, records = ForecastFile(path), {GB: ProviderRecord.of(GB), FR: ProviderRecord.of(FR)}
    for hour in range(hours):
        lines = []
        for series, value in ((GB, 100.0), (FR, 40.0)):
            records[series].forecasts.put(kept(hour, value))
            lines.append(forecast_line(series, kept(hour, value)))
        came = [(NOW + (hour - 1) * HOUR, NOW + hour * HOUR, 90.125 + hour)]
        for start, end, value in came:
            records[GB].readings.put(start, end, value)
        file.keep([*lines, readings_line(GB, came)], records)
    return records


def later(hours: int) -> int:
    return NOW + hours * HOUR


def test_what_was_kept_is_there_after_a_restart_each_provider_apart(tmp_path: Path) -> None:
    records = filled(tmp_path / "f.jsonl")
    found = ForecastFile(tmp_path / "f.jsonl").load(later(6))
    assert told(found) == told(records)
    assert (len(found[GB].forecasts.rows), len(found[FR].readings.starts)) == (6, 0)


def test_a_line_that_was_broken_off_is_no_line_and_the_next_stands_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "f.jsonl"
    filled(path)
    whole = path.read_bytes()
    for cut in (1, 40, len(whole.splitlines(keepends=True)[-1]) - 1):
        path.write_bytes(whole[:-cut])
        file = ForecastFile(path)
        records = file.load(later(6))
        assert len(records[GB].forecasts.rows) == 6
        assert len(records[GB].readings.starts) == 5
        file.keep([forecast_line(GB, kept(7))], records)
        assert len(ForecastFile(path).load(later(7))[GB].forecasts.rows) == 7
    assert caplog.messages == []


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00" * 50 + b"\n",
        b"[" * 100_000 + b"\n",
        b"{}\n",
        b'{"of":["neso","GB","average-direct",0],"came":[[1,2,3]]}\n',
        b'{"of":["neso","GB","average-direct",1],"came":[[1,2,NaN]]}\n',
        b'{"of":["neso","GB","average-direct",1],"came":[[2,1,3]]}\n',
        b'{"of":["neso","GB","no-basis",1],"came":[]}\n',
        b'{"of":["neso","GB","average-direct",1],"at":1,"issued":1,"runs":[5,1,9],"g":[1.0]}\n',
        b'{"of":["neso","GB","average-direct",1],"at":1,"issued":1,"runs":[5,1,1,5,1,1],"g":[1,2]}\n',
        b'{"of":["neso","GB","average-direct",1],"at":1,"issued":1,"runs":[1e99,1,1],"g":[1.0]}\n',
        b'{"of":["neso","GB","average-direct",1],"at":1,"issued":1,"runs":[1,1,1],"g":["x"]}\n',
        b'{"of":["neso","GB","average-direct",1],"at":1,"issued":1,"runs":[1,1,1],"g":[1],"high":[1,2]}\n',
        b'{"of":["neso","GB","average-direct",1],"at":'
        + b"9" * 5000
        + b',"issued":1,"runs":[1,1,1],"g":[1]}\n',
    ],
)
def test_a_damaged_file_is_set_aside_once_and_what_is_good_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    path = tmp_path / "f.jsonl"
    records = filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:3], damage, *lines[3:]])
    path.write_bytes(damaged)
    assert told(ForecastFile(path).load(later(6))) == told(records)
    [message] = caplog.messages
    assert "is damaged (line 4 is no forecast): it is set aside as f.jsonl.damaged, 18 good lines" in message
    assert (tmp_path / "f.jsonl.damaged").read_bytes() == damaged
    assert told(ForecastFile(path).load(later(6))) == told(records)
    assert len(caplog.messages) == 1


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 2000), st.integers(0, 50))
def test_any_bytes_load(tmp_path_factory: pytest.TempPathFactory, raw: bytes, at: int, dropped: int) -> None:
    path = tmp_path_factory.mktemp("f") / "f.jsonl"
    filled(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + raw + whole[at + dropped :])
    logging.disable(logging.WARNING)
    try:
        found = ForecastFile(path).load(later(2))
        again = ForecastFile(path).load(later(2))
    finally:
        logging.disable(logging.NOTSET)
    assert told(again) == told(found)


def test_a_file_beyond_all_size_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path := tmp_path / "f.jsonl")
    monkeypatch.setattr(forecast_file, "MOST_BYTES", 1000)
    assert ForecastFile(path).load(later(6)) == {}
    assert "longer than 1000 bytes" in caplog.text


def test_what_cannot_be_read_at_all_holds_up_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "f.jsonl").mkdir()
    file = ForecastFile(tmp_path / "f.jsonl")
    assert file.load(NOW) == {}
    file.keep([forecast_line(GB, kept(0))], {})
    file.keep([forecast_line(GB, kept(1))], {})
    assert len(caplog.messages) == 2  # cannot be read, cannot be kept
    assert ForecastFile(tmp_path / "none.jsonl").load(NOW) == {}


def test_on_a_full_disk_lines_wait_and_none_is_written_in_part(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 2) as disk:
        if disk is None:
            pytest.skip("mounting is not permitted")
        path = disk.path / "f.jsonl"
        records = filled(path)
        file = ForecastFile(path)
        assert told(file.load(later(6))) == told(records)
        disk.fill()
        before = path.read_bytes()
        for hour in range(6, 60):
            records[GB].forecasts.put(kept(hour, points=48))
            file.keep([forecast_line(GB, kept(hour, points=48))], records)
        held = path.read_bytes()  # what its last block took, in whole lines
        assert held.startswith(before)
        assert held.endswith(b"\n")
        assert file.pending
        assert len(caplog.messages) == 1
        disk.free()
        file.keep([], records)
        assert told(ForecastFile(path).load(later(60))) == told(records)


def test_the_file_is_written_anew_without_what_is_old(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    file, records = ForecastFile(path), {GB: ProviderRecord.of(GB)}
    most = 0
    for hour in range(24 * 29 * 7):
        records[GB].forecasts.put(kept(hour, points=1))
        file.lines += 1  # as appended; opening the file each time would take this test seconds
        if file.lines % 500 == 0:
            file.keep([forecast_line(GB, kept(hour, points=1))], records)
            most = max(most, file.lines)
    assert most <= 4 * 24 * 29 + 1000 + 501
    assert len(path.read_bytes().splitlines()) <= most
    found = ForecastFile(path).load(later(24 * 29 * 7))
    assert found[GB].forecasts.rows[-1].at > later(24 * 29 * 7 - 501)


def test_old_series_and_too_many_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    lines = [forecast_line(Series(f"p{n}", "GB", Basis.AVERAGE_DIRECT), kept(n)) for n in range(12)]
    path.write_text("".join([forecast_line(FR, kept(-24 * 40)), *lines]))
    found = ForecastFile(path).load(later(12))
    assert sorted(series.provider for series in found) == sorted(f"p{n}" for n in range(4, 12))


def test_a_line_is_json(tmp_path: Path) -> None:
    assert json.loads(forecast_line(GB, kept(1)))["high"] == [None, 109.5, 109.5, 109.5]

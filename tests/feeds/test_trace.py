import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from support.fuzz import EDITS, FUZZ, damaged, read_or_refuse

from carbonsched.errors import InputError
from carbonsched.feeds.trace import read_trace

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"
HEAD = "datetime,g_per_kwh\n"


def trace(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_times_values_and_the_hash_of_each_row(tmp_path: Path) -> None:
    found = read_trace(
        trace(
            tmp_path,
            "\ufeffdatetime,g_per_kwh\r\n2022-01-01T00:00:00Z,133.5\r\n\r\n2022-01-01T02:00:00+01:00,0\r\n",
        )
    )
    assert found.times == (datetime(2022, 1, 1, tzinfo=UTC), datetime(2022, 1, 1, 1, tzinfo=UTC))
    assert found.g_per_kwh == (133.5, 0.0)
    assert found.forecast is None
    assert found.sha256[0] == hashlib.sha256(b"2022-01-01T00:00:00Z,133.5").hexdigest()
    assert (found.step_s, found.span_s) == (3600, 7200)


def test_a_forecast_may_be_missing_in_some_rows(tmp_path: Path) -> None:
    text = "datetime,g_per_kwh,forecast_g_per_kwh\n2022-01-01T00:00Z,1,\n2022-01-01T01:00Z,2,3\n"
    assert read_trace(trace(tmp_path, text)).forecast == (None, 3.0)


@pytest.mark.parametrize(
    ("text", "where", "words"),
    [
        ("", "line 1", "write datetime,g_per_kwh"),
        ("time,g\n", "line 1", "the header is 'time,g'"),
        ("datetime,forecast_g_per_kwh\n", "line 1", "the header is"),
        ("x" * 200_000 + "\n", "line 1", "write datetime,g_per_kwh"),
        (
            HEAD + "2022-01-01T00:00:00Z,1\n2022-01-01T01:00:00Z,low\n",
            "line 3",
            "g_per_kwh is not a number: 'low'",
        ),
        (HEAD + "2022-01-01T00:00:00,1\n", "line 2", "has no time zone; write it in UTC with a trailing Z"),
        (HEAD + "yesterday,1\n", "line 2", "'yesterday' is not a time"),
        (HEAD + "0001-01-01T00:00:00+14:00,1\n", "line 2", "lies outside the years 1970 to 2999"),
        (HEAD + "9999-12-31T23:59:59-14:00,1\n", "line 2", "lies outside the years 1970 to 2999"),
        (HEAD + "2022-01-01T00:00Z\u2028,1\n2022-01-01T01:00Z,2\x0b,\n", "line 3", "has 3 columns"),
        (
            HEAD + '2022-01-01T00:00Z,"1\n2022-01-01T01:00Z,2\n',
            "line 2",
            "opens a quote that is never closed",
        ),
        (HEAD + "2022-01-01T00:00Z,1" + "0" * 200_000 + "\n", "line 2", "must be 0 or more"),
        (HEAD + "2022-01-01T00:00Z,\x00\n", "line 2", "g_per_kwh is not a number: '\\x00'"),
        (HEAD + "2022-01-01T00:00Z,1_000\n", "line 2", "g_per_kwh is not a number: '1_000'"),
        (HEAD + "2022-01-01T00:00Z,1e308\n", "line 2", "is 1e+308, above anything that burns"),
        (
            HEAD + "2022-01-01T01:00:00Z,1\n2022-01-01T00:00:00Z,1\n",
            "line 3",
            "does not come after the row before",
        ),
        (HEAD + "2022-01-01T01:00:00Z,1\n2022-01-01T01:00:00Z,1\n", "line 3", "does not come after"),
        (HEAD + "2022-01-01T00:00:00Z,-1\n", "line 2", "must be 0 or more, is -1"),
        (HEAD + "2022-01-01T00:00:00Z,nan\n", "line 2", "must be 0 or more, is nan"),
        (HEAD + "2022-01-01T00:00:00Z,inf\n", "line 2", "must be 0 or more"),
        (HEAD + "2022-01-01T00:00:00Z,1,2\n", "line 2", "has 3 columns, the header 2"),
        (HEAD + "2022-01-01T00:00:00Z,1\n", "", "holds 1 row"),
        (
            "datetime,g_per_kwh,forecast_g_per_kwh\n2022-01-01T00:00Z,1,-2\n",
            "line 2",
            "forecast_g_per_kwh must be",
        ),
    ],
)
def test_a_bad_trace_is_refused_by_file_line_and_mend(
    tmp_path: Path, text: str, where: str, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(trace(tmp_path, text))
    message = str(caught.value)
    assert f"trace.csv, {where}" in message if where else "trace.csv:" in message
    assert words in message
    assert "\n" not in message
    assert len(message) < 3100


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "binary.csv")


@pytest.mark.parametrize(
    ("name", "rows"), [("es-2022-lifecycle.csv", 8760), ("caiso-2019-2020-with-forecast.csv", 17_520)]
)
def test_real_traces_are_read_whole(name: str, rows: int) -> None:
    if not (REAL / name).exists():
        pytest.skip(f"the shared data {name} is not on this machine")
    found = read_trace(REAL / name)
    assert len(found.times) == rows
    assert (found.forecast is not None) == ("forecast" in name)


# ---- fuzz


@pytest.mark.fuzz
@FUZZ
@given(edits=EDITS)
def test_any_bytes_in_a_trace_are_read_or_refused(
    tmp_path: Path, tried: Callable[[], None], edits: list[tuple[int, int, bytes]]
) -> None:
    whole = "datetime,g_per_kwh,forecast_g_per_kwh\n" + "".join(
        f"2022-01-01T{hour:02}:00:00Z,{100 + hour},{90 + hour}\n" for hour in range(4)
    )
    file = tmp_path / "trace.csv"
    for data in damaged(whole.encode(), edits):
        file.write_bytes(data)
        tried()
        found = read_or_refuse(lambda: read_trace(file))
        if found is not None:
            lines = re.split("\r\n|\r|\n", data.decode("utf-8-sig"))
            assert len(found.times) == len(found.sha256) == sum(bool(line.strip()) for line in lines) - 1

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzz import EDITS, FUZZ, damaged, read_or_refuse
from support.manual_clock import ManualClock

from carbonsched.errors import InputError
from carbonsched.model.energy import EnergyMethod
from carbonsched.power.base import Mark
from carbonsched.power.replay import EPOCH, PowerCurve, ReplayMeter, read_curve

T0 = datetime(2026, 7, 1, tzinfo=UTC)


def curve(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "watts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_joules_of_the_recorded_power(tmp_path: Path) -> None:
    clock = ManualClock(EPOCH)
    meter = ReplayMeter(curve(tmp_path, "seconds,watts\n0,100\n10,300.5\n"), clock)
    assert meter.read() == ()
    clock.advance(15)
    [delta] = meter.read()
    assert (delta.device, delta.energy_mj, delta.method) == ("replay-0", 2_502_500, EnergyMethod.COUNTER)
    assert delta.meter == "replay:watts.csv"
    assert meter.devices[0].watts_limit == 300.5
    clock.advance(5)
    clock.advance(20)
    assert meter.read()[0].energy_mj == 1_502_500 + 4_005_000


def test_a_killed_daemon_finds_the_energy_that_was_used_meanwhile(tmp_path: Path) -> None:
    path = curve(tmp_path, "seconds,watts\n0,200\n60,200\n")
    clock = ManualClock(T0)
    meter = ReplayMeter(path, clock)
    meter.read()
    clock.advance(2)
    [last] = meter.read()
    clock.advance(30)
    successor = ReplayMeter(path, ManualClock(clock.at))
    successor.resume(
        {
            "replay-0": Mark(last.end, last.counter_end_mj, last.counter_epoch, last.power_w),
            "gone": Mark(T0, 1, "x:0", 1),
        }
    )
    [bridge] = successor.read()
    assert (bridge.energy_mj, bridge.bridged, bridge.method) == (6_000_000, True, EnergyMethod.COUNTER)
    assert bridge.start == last.end


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.integers(1, 10**8), st.integers(0, 10**6)), min_size=1, max_size=8),
    seconds=st.lists(st.floats(0, 10**8), min_size=2, max_size=5).map(sorted),
)
def test_the_counter_never_falls_and_is_a_function_of_time_alone(
    rows: list[tuple[int, int]], seconds: list[float]
) -> None:
    at, points = 0, []
    for step, mw in rows:
        points.append((at, mw))
        at += step
    one, other = PowerCurve(points), PowerCurve(points)
    times = [EPOCH + timedelta(seconds=s) for s in seconds]
    counters = [one.counter_mj(t) for t in times]
    assert counters == sorted(counters)
    assert counters[-1] == other.counter_mj(times[-1])
    assert one.counter_mj(EPOCH) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("watts\n1\n", "line 1: is not the header `seconds,watts`"),
        ("seconds,watts\n0,much\n", "line 2: '0,much' is not two numbers"),
        ("seconds,watts\n0,nan\n", "line 2"),
        ("seconds,watts\n0,1_0\n", "line 2: '0,1_0' is not two numbers"),
        ("seconds,watts\n0,1,2\n", "line 2"),
        ("seconds,watts\n0,-1\n", "line 2: watts must not be negative"),
        ("seconds,watts\n5,1\n5,2\n", "line 3: seconds must ascend"),
        ("seconds,watts\n", "holds no rows"),
        ('seconds,watts\n0,1\n5,"2\n', "line 3: opens a quote that is never closed"),
        ("seconds,watts\n0,\x00\n", "line 2: '0,\\x00' is not two numbers"),
        (f"seconds,watts\n0,{'9' * 200_000}\n", "is not two numbers"),
        ("seconds,watts\n0,1e300\n", "line 2: 0,1e+300 is beyond any device"),
    ],
)
def test_a_bad_file_is_refused_by_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match="watts") as caught:
        read_curve(curve(tmp_path, text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"power\.replay_file: .*cannot be read"):
        read_curve(tmp_path / "none.csv")


# ---- fuzz


@pytest.mark.fuzz
@FUZZ
@given(edits=EDITS)
def test_any_bytes_in_a_power_curve_are_read_or_refused(
    tmp_path: Path, tried: Callable[[], None], edits: list[tuple[int, int, bytes]]
) -> None:
    file = tmp_path / "watts.csv"
    for data in damaged(b'seconds,watts\n0,200\n60,250.5\n120,"90"\n', edits):
        file.write_bytes(data)
        tried()
        found = read_or_refuse(lambda: read_curve(file))
        if found is not None:
            assert math.isfinite(found.watts(T0) + found.counter_mj(T0))

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power.base import Mark
from carbonsched.power.counter import BRIDGE_S, DeviceCounter, Sample

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(
    seconds: float, counter: int | None = None, watts: float | None = None, error: str | None = None
) -> Sample:
    return Sample(T0 + timedelta(seconds=seconds), 1000 + seconds, counter, watts, error)


def gpu(**kwargs: object) -> DeviceCounter:
    return DeviceCounter("GPU-1", "nvml", "boot", **kwargs)  # type: ignore[arg-type]


def run(device: DeviceCounter, *samples: Sample) -> list[EnergyDelta]:
    return [delta for sample in samples if (delta := device.add(sample)) is not None]


def test_the_first_look_says_nothing_and_the_second_the_counters_difference() -> None:
    device = gpu()
    assert device.add(at(0, 5_000, 100)) is None
    delta = device.add(at(2, 305_000, 200))
    assert delta is not None
    assert (delta.energy_mj, delta.method, delta.power_w) == (300_000, EnergyMethod.COUNTER, 150.0)
    assert (delta.counter_start_mj, delta.counter_end_mj, delta.counter_epoch) == (5_000, 305_000, "boot:0")
    assert (delta.coverage, delta.bridged, delta.reason) == (1.0, False, None)


def test_without_a_counter_power_is_integrated_by_the_monotonic_clock() -> None:
    [delta] = run(gpu(), at(0, None, 100), at(2, None, 200))
    assert (delta.energy_mj, delta.method, delta.coverage) == (300_000, EnergyMethod.INTEGRATED, 1.0)
    assert delta.counter_start_mj is None


def test_a_long_gap_between_power_readings_is_not_called_fully_sampled() -> None:
    [delta] = run(gpu(), at(0, None, 100), at(100, None, 100))
    assert delta.energy_mj == 10_000_000
    assert delta.coverage == pytest.approx(0.1)


def test_a_counter_that_falls_begins_a_new_epoch_and_the_stretch_is_integrated() -> None:
    device = gpu()
    first, reset, after = run(device, at(0, 900, 100), at(1, 1000, 100), at(2, 30, 100), at(3, 100_030, 100))
    assert (first.counter_epoch, first.energy_mj) == ("boot:0", 100)
    assert (reset.counter_epoch, reset.energy_mj, reset.method) == (
        "boot:1",
        100_000,
        EnergyMethod.INTEGRATED,
    )
    assert (reset.counter_start_mj, reset.counter_end_mj) == (None, None)
    assert "fell from 1000 to 30" in (reset.reason or "")
    assert (after.energy_mj, after.method, after.counter_epoch) == (100_000, EnergyMethod.COUNTER, "boot:1")


def test_a_counter_that_fell_in_a_long_gap_leaves_it_unknown() -> None:
    [delta] = run(gpu(), at(0, 1000, 100), at(60, 30, 100))
    assert (delta.energy_mj, delta.method) == (None, EnergyMethod.UNAVAILABLE)


def test_a_device_that_fails_is_null_with_the_reason_and_its_energy_comes_later() -> None:
    failed, back, normal = run(
        gpu(), at(0, 1000, 100), at(1, error="the GPU is lost"), at(2, 3000, 100), at(3, 4000, 100)
    )
    assert (failed.energy_mj, failed.method, failed.reason) == (
        None,
        EnergyMethod.UNAVAILABLE,
        "the GPU is lost",
    )
    assert (back.energy_mj, back.method, back.power_w) == (2000, EnergyMethod.ESTIMATED, 1.0)
    assert (back.counter_start_mj, back.counter_end_mj) == (1000, 3000)
    assert "could not be read" in (back.reason or "")
    assert (normal.energy_mj, normal.method) == (1000, EnergyMethod.COUNTER)


def test_a_restarted_daemon_bridges_by_the_counter() -> None:
    device = gpu()
    device.resume(Mark(T0 - timedelta(hours=3), 1_000, "boot:2", 90.0))
    delta = device.add(at(0, 500_000_000, 100))
    assert delta is not None
    assert (delta.energy_mj, delta.method, delta.bridged) == (499_999_000, EnergyMethod.COUNTER, True)
    assert (delta.start, delta.coverage, delta.counter_epoch) == (T0 - timedelta(hours=3), 1.0, "boot:2")


@pytest.mark.parametrize(
    ("epoch", "counter", "expected_epoch", "words"),
    [
        ("boot:2", 10, "boot:3", "fell"),
        ("other:2", 5_000, "boot:0", "started anew"),
        ("garbled", 5_000, "boot:0", "started anew"),
    ],
)
def test_what_a_reloaded_driver_or_a_reboot_burnt_is_unknown(
    epoch: str, counter: int, expected_epoch: str, words: str
) -> None:
    device = gpu()
    device.resume(Mark(T0 - timedelta(seconds=60), 1_000, epoch, 90.0))
    delta = device.add(at(0, counter, 100))
    assert delta is not None
    assert (delta.energy_mj, delta.bridged, delta.counter_epoch) == (None, True, expected_epoch)
    assert words in (delta.reason or "")


def test_a_counter_that_outran_the_devices_limit_is_not_believed() -> None:
    device = gpu(watts_limit=300.0)
    device.resume(Mark(T0 - timedelta(seconds=60), 1_000, "boot:0", 90.0))
    delta = device.add(at(0, 60_000_000, 100))
    assert delta is not None
    assert delta.energy_mj is None
    assert "1000 W on a device limited to 300 W" in (delta.reason or "")


def test_without_a_counter_a_short_absence_is_estimated_and_a_long_one_unknown() -> None:
    for away, known in ((60.0, True), (BRIDGE_S - 1, True), (BRIDGE_S + 1, False)):
        device = gpu(counter_survives=False)
        device.resume(Mark(T0 - timedelta(seconds=away), None, "boot:0", 50.0))
        delta = device.add(at(0, None, 150))
        assert delta is not None
        assert (delta.bridged, delta.coverage) == (True, 0.0)
        assert "the daemon was away" in (delta.reason or "")
        assert delta.energy_mj == (round(100 * away * 1000) if known else None)
        assert delta.method is (EnergyMethod.ESTIMATED if known else EnergyMethod.UNAVAILABLE)


def test_a_stepped_wall_clock_changes_no_joules() -> None:
    device = gpu()
    device.add(at(0, None, 100))
    for step in (-7200.0, 86_400.0):
        before = device.add(Sample(T0 + timedelta(seconds=step), 1001, None, 100))
        device = gpu()
        device.add(at(0, None, 100))
        assert before is not None
        assert (before.energy_mj, (before.end - before.start).total_seconds()) == (100_000, 1.0)
        assert "stepped" in (before.reason or "")


def slept(
    seconds: float, asleep: float, counter: int | None, watts: float | None, error: str | None = None
) -> Sample:
    times = T0 + timedelta(seconds=seconds + asleep), 1000 + seconds + asleep
    return Sample(*times, counter, watts, error, awake_s=1000 + seconds)


@pytest.mark.parametrize(
    ("before", "after", "method", "energy_mj"),
    [
        ((None, 100.0), (None, 100.0), "integrated", 200_000),
        ((50_000, 100.0), (260_000, 100.0), "counter", 210_000),
        ((50_000, 100.0), (10_000, 100.0), "integrated", 200_000),
        ((50_000, None), (10_000, None), "unavailable", None),
        ((None, 100.0), (None, None, "gone"), "unavailable", None),
    ],
    ids=["power", "counter", "counter began anew", "neither", "not read"],
)
def test_a_suspended_box_is_charged_what_the_counter_says_and_nothing_else(
    before: tuple[Any, ...], after: tuple[Any, ...], method: str, energy_mj: int | None
) -> None:
    (delta,) = run(gpu(watts_limit=300.0), slept(0, 0, *before), slept(2, 7200, *after))
    assert (delta.method, delta.energy_mj) == (method, energy_mj)
    assert (delta.end - delta.start).total_seconds() == 2, "for the time asleep nothing is held back either"
    assert "suspended for 7200 s" in (delta.reason or "")


def test_no_time_between_two_looks_loses_nothing() -> None:
    device = gpu()
    deltas = run(device, at(0, 0, 1), at(0, 5, 1), at(1, 1000, 1))
    assert [d.energy_mj for d in deltas] == [1000]


def test_a_ledger_from_the_future_is_said_and_does_not_overlap_forever() -> None:
    device = gpu()
    device.resume(Mark(T0 + timedelta(hours=2), 1_000, "boot:0", 90.0))
    delta = device.add(at(0, 4_000, 100))
    assert delta is not None
    assert delta.energy_mj == 3_000
    assert delta.start < delta.end == T0
    assert "set back by at least 7200 s" in (delta.reason or "")


events = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), st.integers(0, 700_000)),
        st.tuples(st.just("reset"), st.integers(0, 1_000)),
        st.tuples(st.just("fail"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(events)
def test_conservation_by_epoch_whatever_happens(script: list[tuple[str, int]]) -> None:
    """Σ mJ of an epoch's counter rows = the counter's last value − its first, through resets, failures and restarts;
    time is covered without a hole."""
    device, counter = gpu(), 10_000
    rows = run(device, at(0, counter, 100))
    for second, (what, amount) in enumerate(script, start=1):
        counter = amount if what == "reset" else counter + amount
        if what == "restart" and rows:
            last = rows[-1]
            counted = [row.counter_end_mj for row in rows if row.counter_epoch == last.counter_epoch]
            known = [mark for mark in counted if mark is not None]
            device = gpu()
            device.resume(Mark(last.end, known[-1] if known else None, last.counter_epoch, last.power_w))
        error = "lost" if what == "fail" else None
        rows += run(device, at(second, None if error else counter, None if error else 100.0, error))
    assert all(a.end == b.start for a, b in itertools.pairwise(rows))
    by_epoch: dict[str, list[EnergyDelta]] = {}
    for row in rows:
        assert (row.energy_mj is None) == (row.method is EnergyMethod.UNAVAILABLE)
        assert row.energy_mj is not None or row.reason
        if row.counter_end_mj is not None:
            by_epoch.setdefault(row.counter_epoch, []).append(row)
    for counted_rows in by_epoch.values():
        first, last_mark = counted_rows[0].counter_start_mj, counted_rows[-1].counter_end_mj
        assert first is not None
        assert last_mark is not None
        assert sum(row.energy_mj or 0 for row in counted_rows) == last_mark - first
        assert all(a.counter_end_mj == b.counter_start_mj for a, b in itertools.pairwise(counted_rows))

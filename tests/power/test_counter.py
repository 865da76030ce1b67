import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power.base import Mark
from carbonsched.power.counter import BRIDGE_S, DeviceCounter
from carbonsched.power.power_trace import PowerReading
from carbonsched.power.sample import Sample

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


def at(
    seconds: float, counter: int | None = None, watts: float | None = None, error: str | None = None
) -> Sample:
    return Sample(T0 + timedelta(seconds=seconds), 1000 + seconds, counter, watts, error)


def read_between(sample: Sample, *points: tuple[float, float]) -> Sample:
    """The same with power that was read (seconds, watts) before it."""
    readings = tuple(PowerReading(1000 + seconds, watts) for seconds, watts in points)
    return replace(sample, awake_s=sample.monotonic_s, between=readings)


def gpu(**kwargs: object) -> DeviceCounter:
    return DeviceCounter("GPU-1", "nvml", "boot", **kwargs)  # type: ignore[arg-type]


def run(device: DeviceCounter, *samples: Sample) -> list[EnergyDelta]:
    """What was told late stands before what it was told with."""
    found: list[EnergyDelta] = []
    for sample in samples:
        delta = device.add(sample)
        found += [*device.take_late(), *([] if delta is None else [delta])]
    return found


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


def test_power_that_was_read_between_two_samples_is_integrated() -> None:
    """A burst of a tenth of a second that the samples themselves do not meet."""
    first, second = read_between(at(0, None, 100)), at(1, None, 100)
    assert [d.energy_mj for d in run(gpu(), first, second)] == [100_000]
    [delta] = run(gpu(), first, read_between(second, (0.4, 100), (0.5, 400), (0.6, 100)))
    assert (delta.energy_mj, delta.method, delta.coverage) == (130_000, EnergyMethod.INTEGRATED, 1.0)
    assert delta.power_w == pytest.approx(130)
    assert [joules for _, joules in delta.profile] == pytest.approx([0, 40, 65, 90, 130])
    assert "profile" not in delta.dump()


def test_wild_power_between_two_samples_is_no_reading() -> None:
    [delta] = run(
        gpu(watts_limit=300.0),
        read_between(at(0, None, 100)),
        read_between(at(1, None, 100), (0.3, 4e6), (0.5, 100)),
    )
    assert delta.energy_mj == 100_000


def test_power_that_nobody_read_for_long_between_two_samples_is_not_called_fully_sampled() -> None:
    [delta] = run(
        gpu(), read_between(at(0, None, 100)), read_between(at(100, None, 100), (0.5, 100), (1.0, 100))
    )
    assert delta.energy_mj == 10_000_000
    assert delta.coverage == pytest.approx(0.11)


def test_power_between_samples_of_a_box_that_slept_is_of_the_time_awake() -> None:
    first = read_between(at(0, None, 100))
    woken = replace(read_between(at(100, None, 100), (1, 300), (2, 100)), awake_s=1000 + 10.0)
    [delta] = run(gpu(), first, woken)
    # trapezoids of 200 W for two seconds and 100 W for eight
    assert delta.energy_mj == 1_200_000
    assert "suspended for 90 s" in str(delta.reason)


def test_a_counter_that_stands_still_is_integrated_by_all_that_was_read_meanwhile() -> None:
    """Also by what was read before it was clear that it stands: the first such sample waits for the next."""
    device = gpu()
    assert not device.wants_power
    [] = run(device, read_between(at(0, 5_000, 100)))
    assert not device.wants_power, "a counter answers"
    [] = run(device, read_between(at(1, 5_000, 100), (0.5, 500)))
    assert device.wants_power
    [delta] = run(device, read_between(at(2, 5_000, 100), (1.5, 500)))
    assert (delta.energy_mj, delta.method) == (600_000, EnergyMethod.INTEGRATED)
    assert device.wants_power
    run(device, read_between(at(3, 105_000, 100)), read_between(at(4, 205_000, 100)))
    assert not device.wants_power, "it runs again"


def test_a_board_that_fails_is_not_read_in_between() -> None:
    device = gpu()
    run(device, read_between(at(0, None, 100)))
    assert device.wants_power
    run(device, at(1, error="the GPU is lost"))
    assert not device.wants_power


def test_a_counter_that_falls_begins_a_new_epoch_and_the_stretch_is_integrated() -> None:
    device = gpu()
    samples = [
        at(0, 800_900, 100),
        at(1, 900_900, 100),
        at(2, 30, 100),
        at(3, 100_030, 100),
        at(4, 200_030, 100),
    ]
    first, reset, after = run(device, *samples)
    assert (first.counter_epoch, first.energy_mj) == ("boot:0", 100_000)
    assert (reset.counter_epoch, reset.energy_mj, reset.method) == (
        "boot:1",
        200_000,
        EnergyMethod.INTEGRATED,
    )
    assert (reset.counter_start_mj, reset.counter_end_mj) == (None, None)
    assert "fell from 900900 to 30 mJ" in (reset.reason or "")
    assert (after.energy_mj, after.method, after.counter_epoch) == (100_000, EnergyMethod.COUNTER, "boot:1")


def test_a_counter_that_fell_in_a_long_gap_leaves_it_unknown() -> None:
    [delta] = run(gpu(), at(0, 900_000, 100), at(60, 30, 100), at(61, 130, 100))
    assert (delta.energy_mj, delta.method) == (None, EnergyMethod.UNAVAILABLE)


def test_a_device_that_fails_is_null_with_the_reason_and_its_energy_comes_later() -> None:
    failed, late, back, normal = run(
        gpu(), at(0, 1000, 100), at(1, error="the GPU is lost"), at(2, 3000, 100), at(3, 4000, 100)
    )
    assert (failed.energy_mj, failed.method, failed.reason) == (
        None,
        EnergyMethod.UNAVAILABLE,
        "the GPU is lost",
    )
    # by time: half of it was used while nobody could read it
    for part, counters in ((late, (1000, 2000)), (back, (2000, 3000))):
        assert (part.energy_mj, part.method, part.power_w) == (1000, EnergyMethod.ESTIMATED, 1.0)
        assert (part.counter_start_mj, part.counter_end_mj) == counters
    assert (late.start, late.end, late.recovered, back.recovered) == (failed.start, failed.end, True, False)
    assert "could be read again" in (late.reason or "")
    assert "could not be read" in (back.reason or "")
    assert (normal.energy_mj, normal.method) == (1000, EnergyMethod.COUNTER)


def test_a_daemon_that_was_restarted_while_blind_tells_the_blind_time_apart() -> None:
    device = gpu()
    device.resume(Mark(T0, 1_000, "boot:0", None, blind_from=T0 - timedelta(seconds=30)))
    late, back = run(device, at(10, 41_000, 1))
    assert (late.start, late.end, late.energy_mj, late.recovered) == (
        T0 - timedelta(seconds=30),
        T0,
        30_000,
        True,
    )
    assert (back.start, back.energy_mj, back.bridged) == (T0, 10_000, True)


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
    delta = device.add(at(0, counter, 100)) or device.add(at(1, counter, 100))
    assert delta is not None
    assert (delta.energy_mj, delta.bridged, delta.counter_epoch) == (None, True, expected_epoch)
    assert words in (delta.reason or "")


def test_a_counter_that_outran_the_devices_limit_is_not_believed() -> None:
    device = gpu(watts_limit=300.0)
    device.resume(Mark(T0 - timedelta(seconds=60), 1_000, "boot:0", 90.0))
    assert device.add(at(0, 60_001_000, 100)) is None
    delta = device.add(at(1, 60_002_000, 100))
    assert delta is not None
    assert delta.energy_mj is None
    assert "1000 W on a device limited to 300 W" in (delta.reason or "")


YEAR_MJ = 250 * 365 * 86_400 * 1000


@pytest.mark.parametrize("wild", [0, 7, YEAR_MJ, 20_000_000 + 5_000_000])
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice, each another"])
def test_a_wild_value_is_forgotten_when_the_counter_goes_on_from_before(wild: int, again: bool) -> None:
    base = 20_000_000
    samples = [at(0, base, 250), at(1, base + 250_000, 250), at(2, wild, 250)]
    samples += [at(3, wild // 3 + YEAR_MJ, 250)] if again else []
    samples += [at(4, base + 1_000_000, 250), at(5, base + 1_250_000, 250)]
    rows = run(gpu(watts_limit=700.0), *samples)
    assert [row.energy_mj for row in rows] == [250_000, 750_000, 250_000]
    assert {(row.method, row.counter_epoch) for row in rows} == {(EnergyMethod.COUNTER, "boot:0")}


def test_a_wild_value_at_the_restart_is_forgotten_too() -> None:
    device = gpu(watts_limit=700.0)
    device.resume(Mark(T0 - timedelta(seconds=60), 20_000_000, "boot:0", 250.0))
    (row,) = run(device, at(0, 3, 250), at(1, 20_000_000 + 61 * 250_000, 250))
    assert (row.energy_mj, row.method, row.bridged) == (61 * 250_000, EnergyMethod.COUNTER, True)


def test_a_counter_that_leapt_and_goes_on_from_there_is_another_one() -> None:
    samples = [
        at(0, 1_000, 250),
        at(1, YEAR_MJ, 250),
        at(2, YEAR_MJ + 250_000, 250),
        at(3, YEAR_MJ + 500_000, 250),
    ]
    leap, after = run(gpu(watts_limit=700.0), *samples)
    assert (leap.energy_mj, leap.method, leap.counter_epoch) == (500_000, EnergyMethod.INTEGRATED, "boot:1")
    assert (after.energy_mj, after.counter_epoch) == (250_000, "boot:1")


def test_no_two_values_of_a_counter_gone_mad_are_waited_for_long() -> None:
    mad = [at(n, (n % 2) * YEAR_MJ + n * YEAR_MJ // 7, 250) for n in range(40)]
    rows = run(gpu(watts_limit=700.0), *mad)
    assert all((row.end - row.start).total_seconds() <= 12 for row in rows)
    assert all(row.energy_mj is None or row.energy_mj <= 12 * 250_000 for row in rows)


@pytest.mark.parametrize("watts", [4_294_967.295, -1.0, float("nan")])
def test_a_wild_power_is_no_reading(watts: float) -> None:
    rows = run(gpu(watts_limit=300.0), at(0, None, 100), at(1, None, watts), at(2, None, 100))
    assert [(row.energy_mj, row.power_w) for row in rows] == [(None, None), (100_000, 100.0)]
    (counted,) = run(gpu(watts_limit=300.0), at(0, 1_000_000, 100), at(1, 1_100_000, watts))
    assert (counted.energy_mj, counted.power_w) == (100_000, 100.0)


def test_the_sensors_noise_is_no_fall() -> None:
    counter, samples = 5_000_000, []
    for n in range(60):
        counter += 100_000 if n % 10 else -300
        samples.append(at(n, counter, 100))
    rows = run(gpu(watts_limit=300.0), *samples)
    assert {row.counter_epoch for row in rows} == {"boot:0"}
    assert {row.method for row in rows} == {EnergyMethod.COUNTER}
    assert sum(row.energy_mj or 0 for row in rows) == counter - samples[0].counter_mj  # type: ignore[operator]


def stands(catches_up: bool) -> list[EnergyDelta]:
    """Of a counter that stands still for ten seconds under 250 W, and then goes on."""
    seconds = 10 if catches_up else 0
    moving = [at(11 + n, 1_000_000 + (seconds + n + 1) * 250_000, 250) for n in range(3)]
    return run(gpu(watts_limit=700.0), *(at(n, 1_000_000, 250) for n in range(11)), *moving)


@pytest.mark.parametrize("catches_up", [False, True])
def test_a_counter_that_stands_still_under_load_is_integrated_and_what_it_catches_up_replaces_that(
    catches_up: bool,
) -> None:
    rows = stands(catches_up)
    assert sum(row.energy_mj or 0 for row in rows) == 13 * 250_000
    integrated = [row for row in rows if row.method is EnergyMethod.INTEGRATED]
    assert sum(row.energy_mj or 0 for row in integrated) == 10 * 250_000
    assert all("stood still since 12:00:00" in (row.reason or "") for row in integrated)
    assert {row.counter_epoch for row in rows} == {"boot:1"}
    counted = [row for row in rows if row.counter_end_mj is not None]
    assert all(row.energy_mj == row.counter_end_mj - row.counter_start_mj for row in counted)  # type: ignore[operator]


def test_a_counter_that_stands_while_nothing_is_drawn_is_believed() -> None:
    rows = run(gpu(), at(0, 1_000, 0), at(1, 1_000, 0), at(10, 1_000, 0))
    assert [(row.energy_mj, row.method) for row in rows] == [(0, EnergyMethod.COUNTER)] * 2


def test_a_counter_that_rose_by_less_than_the_board_draws_while_nobody_looked_has_begun_anew() -> None:
    device = gpu(watts_limit=700.0)
    device.resume(Mark(T0 - timedelta(hours=1), 1_000_000, "boot:0", 300.0))
    (row,) = run(device, at(0, 3_000_000, 300), at(1, 3_300_000, 300))
    assert (row.energy_mj, row.method, row.counter_epoch) == (None, EnergyMethod.UNAVAILABLE, "boot:1")
    assert "rose by 1 W only, and the board draws 300 W or more: it has begun anew meanwhile" in (
        row.reason or ""
    )


def blind(*, before: int, after: int, error: Sample | None = None, **told: bool) -> list[EnergyDelta]:
    """Of a counter that could not be read for five minutes, at a board that draws 100 W before and after."""
    device = gpu(watts_limit=700.0)
    rows = run(device, at(0, before - 100_000, 100), at(1, before, 100), error or at(2, error="timeout"))
    rows += run(device, *(at(float(n), error="timeout") for n in range(3, 300)))
    for n in range(4):
        delta = device.add(
            at(300.0 + n, after + n * 100_000, 100), reloaded=told.get("reloaded", False) and n < 2
        )
        rows += [*device.take_late(), *([] if delta is None else [delta])]
    return rows


LOST = Sample(T0 + timedelta(seconds=2), 1002, error="the GPU is lost", life_over=True)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"after": 5_000_000}, "rose by 7 W only"),
        ({"after": 23_000_000, "error": LOST}, "begins anew after this: the GPU is lost"),
        ({"after": 23_000_000, "reloaded": True}, "the other boards' counters began anew"),
    ],
    ids=["it rose by too little", "the driver said so", "others began anew"],
)
def test_a_counter_that_passed_its_old_value_in_a_blind_spell_begins_an_epoch(
    said: dict[str, Any], words: str
) -> None:
    rows = blind(before=3_000_000, **said)
    anew = [row for row in rows if row.counter_epoch == "boot:1"]
    assert words in (anew[0].reason or "")
    assert anew[0].method is EnergyMethod.INTEGRATED
    assert not any(row.recovered for row in rows), "the blind time stays unknown"
    assert anew[1].counter_start_mj == said["after"] + 100_000


@pytest.mark.parametrize("error", [None, LOST], ids=["blind", "said to be lost"])
def test_a_counter_that_stands_higher_than_it_can_have_counted_anew_goes_on(error: Sample | None) -> None:
    rows = blind(before=3_000_000_000, after=3_000_010_000, error=error)
    assert {row.counter_epoch for row in rows} == {"boot:0"}
    assert sum(row.energy_mj or 0 for row in rows) == 100_000 + 10_000 + 300_000


def test_a_blind_counter_whose_driver_was_reloaded_is_of_a_new_epoch_at_once() -> None:
    device = gpu(watts_limit=700.0)
    run(device, at(0, 1_000_000, 100), at(1, 1_100_000, 100), at(2, error="timeout"))
    epochs = []
    for n, reloaded in enumerate([True, False, True, True, False]):
        delta = device.add(at(3.0 + n, error="timeout"), reloaded=reloaded)
        assert delta is not None
        epochs.append(delta.counter_epoch)
    assert epochs == ["boot:0"] * 3 + ["boot:1"] * 2, "two reads bear it out"


def test_power_beside_a_counter_that_is_missing_says_why_and_no_epoch_has_a_hole() -> None:
    rows = run(gpu(), *(at(n, None if n == 2 else n * 100_000, 100) for n in range(6)))
    assert [row.method for row in rows] == ["counter", "integrated", "integrated", "counter", "counter"]
    assert "read for the first time here" in (rows[2].reason or "")
    assert {row.counter_epoch for row in rows[:1]} == {"boot:0"}
    assert {row.counter_epoch for row in rows[3:]} == {"boot:1"}


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
    samples = [slept(0, 0, *before), slept(2, 7200, *after)]
    began_anew = before[0] is not None and after[0] < before[0]
    if began_anew:  # the next value bears it out
        samples = [slept(0, 0, *before), slept(1, 7200, *after), slept(2, 7200, after[0] + 1, *after[1:])]
    (delta,) = run(gpu(watts_limit=300.0), *samples)
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
    in_time = [row for row in rows if not row.recovered]
    assert all(a.end == b.start for a, b in itertools.pairwise(in_time))
    for row in rows:  # what is told late lies in time that was unknown
        assert not row.recovered or all(
            other.energy_mj is None for other in in_time if row.start <= other.start and other.end <= row.end
        )
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

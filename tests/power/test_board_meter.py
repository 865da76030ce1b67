"""Boards of AMD and Intel as NVIDIA's (test_nvml_meter.py): by their counter, through loss, return, reload and a daemon's restart."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.manual_clock import ManualClock
from support.vendors import FakeAmd, FakeIntel, Vendor

from carbonsched.errors import InputError, PowerError
from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power.base import Mark
from carbonsched.power.board_meter import BoardMeter

START = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture(params=["amd", "intel"])
def vendor(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vendor:
    return FakeAmd(monkeypatch) if request.param == "amd" else FakeIntel(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


def meter_of(vendor: Vendor, clock: ManualClock, **options: object) -> BoardMeter:
    return BoardMeter(vendor.driver(), clock, "boot", **options)  # type: ignore[arg-type]


def second(
    meter: BoardMeter, clock: ManualClock, vendor: Vendor, *watts: float, seconds: float = 1.0
) -> dict[str, EnergyDelta]:
    clock.advance(seconds)
    for board, each in enumerate(watts):
        vendor.use(board, each * seconds)
    return {delta.device: delta for delta in meter.read()}


def test_energy_is_the_counters_difference_on_every_board(vendor: Vendor, clock: ManualClock) -> None:
    meter = meter_of(vendor, clock)
    assert tuple(device.id for device in meter.devices) == vendor.ids
    assert [device.index for device in meter.devices] == [0, 1]
    assert all(device.watts_limit for device in meter.devices)
    assert meter.read() == ()
    total = 0
    for _ in range(20):
        deltas = second(meter, clock, vendor, 100, 120)
        assert set(deltas) == set(vendor.ids)
        assert {delta.method for delta in deltas.values()} == {EnergyMethod.COUNTER}
        total += deltas[vendor.ids[0]].energy_mj or 0
    assert total == pytest.approx(20 * 100_000, abs=1), "no step of the counter is lost"
    meter.close()


def test_a_successor_bridges_by_the_counter(vendor: Vendor, clock: ManualClock) -> None:
    meter = meter_of(vendor, clock)
    meter.read()
    last = second(meter, clock, vendor, 100, 100)[vendor.ids[0]]
    meter.close()
    successor = meter_of(vendor, clock)
    successor.resume({last.device: Mark(last.end, last.counter_end_mj, last.counter_epoch, last.power_w)})
    bridge = second(successor, clock, vendor, 100, 100, seconds=60)[vendor.ids[0]]
    assert (bridge.bridged, bridge.method, bridge.start) == (True, EnergyMethod.COUNTER, last.end)
    assert bridge.energy_mj == pytest.approx(6_000_000, abs=1)


def test_a_board_that_breaks_is_null_with_the_reason_and_comes_back(
    vendor: Vendor, clock: ManualClock
) -> None:
    meter = meter_of(vendor, clock)
    meter.read()
    second(meter, clock, vendor, 100, 100)
    vendor.break_board(0)
    broken = second(meter, clock, vendor, 0, 100)
    assert (broken[vendor.ids[0]].energy_mj, broken[vendor.ids[1]].energy_mj) == (
        None,
        pytest.approx(100_000, abs=1),
    )
    assert broken[vendor.ids[0]].reason
    vendor.mend_board(0)
    vendor.use(0, 100)  # what it used meanwhile
    for _ in range(3):
        after = second(meter, clock, vendor, 100, 100)[vendor.ids[0]]
    assert after.energy_mj == pytest.approx(100_000, abs=1)


def test_a_driver_that_went_away_is_opened_again_and_counts_from_zero(
    vendor: Vendor, clock: ManualClock
) -> None:
    meter = meter_of(vendor, clock)
    meter.read()
    before = second(meter, clock, vendor, 100, 100)[vendor.ids[0]]
    vendor.remove()
    clock.advance(1)
    assert [delta.energy_mj for delta in meter.read()] == [None, None]
    vendor.put_back()
    vendor.reload()
    clock.advance(31)
    meter.read()
    for _ in range(4):  # a fall is believed once a second read confirms it
        after = second(meter, clock, vendor, 100, 100)[vendor.ids[0]]
    assert after.energy_mj == pytest.approx(100_000, abs=1)
    assert after.counter_epoch != before.counter_epoch


def test_only_boards_that_are_named_are_metered(vendor: Vendor, clock: ManualClock) -> None:
    assert [device.id for device in meter_of(vendor, clock, boards=(1,)).devices] == [vendor.ids[1]]
    assert [device.id for device in meter_of(vendor, clock, boards=(vendor.ids[0],)).devices] == [
        vendor.ids[0]
    ]
    with pytest.raises(InputError, match="names no board of this box"):
        meter_of(vendor, clock, boards=(7,))


def test_without_a_board_it_is_refused_or_waited_for(vendor: Vendor, clock: ManualClock) -> None:
    vendor.remove()
    with pytest.raises(PowerError):
        meter_of(vendor, clock)
    meter = meter_of(vendor, clock, must_answer=False)
    assert meter.devices == ()
    vendor.put_back()
    clock.advance(31)
    meter.read()
    assert tuple(device.id for device in meter.devices) == vendor.ids

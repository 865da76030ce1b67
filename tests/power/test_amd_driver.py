"""What AMD SMI tells, and how: its N/A, its codes, its absence."""

import sys
from datetime import UTC, datetime

import pytest
from support.manual_clock import ManualClock
from support.vendors import FakeAmd

from carbonsched.errors import PowerError
from carbonsched.model.energy import EnergyMethod
from carbonsched.power.amd import AmdSettings
from carbonsched.power.amd_driver import AmdDriver
from carbonsched.power.board_meter import BoardMeter, DriverError

START = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch) -> FakeAmd:
    return FakeAmd(monkeypatch)


def test_a_board_is_known_by_its_serial_or_else_by_its_uuid(amd: FakeAmd) -> None:
    amd.serials = ("N/A", "0x0")
    found = AmdDriver().open().boards
    assert [board.uuid for board, _ in found] == [
        "GPU-b5ff74a1-0000-1000-80b5-000000000000",
        "GPU-b5ff74a1-0000-1000-80b5-000000000001",
    ]


def test_what_the_settings_build(amd: FakeAmd) -> None:
    meter = AmdSettings.parse({"provider": "amd"}).build(ManualClock(START))
    [first, _] = meter.devices
    assert (first.name, first.watts_limit, first.memory_bytes) == (
        "AMD Instinct MI300X",
        750.0,
        196_592 << 20,
    )
    meter.close()
    assert amd.asked[-1] == "shut_down"


def test_a_board_that_counts_nothing_is_integrated(amd: FakeAmd) -> None:
    amd.counts = False
    clock = ManualClock(START)
    meter = BoardMeter(AmdDriver(), clock, "boot")
    meter.read()
    clock.advance(1)
    [first, _] = meter.read()
    assert (first.method, first.energy_mj) == (EnergyMethod.INTEGRATED, 300_000)


def test_power_that_is_not_told_is_no_number(amd: FakeAmd) -> None:
    amd.watts[0] = "N/A"
    with pytest.raises(DriverError, match="tells no power"):
        AmdDriver().watts(0)


@pytest.mark.parametrize(
    ("code", "words"), [(10, "groups render and video"), (34, "modprobe amdgpu"), (7, "code 7")]
)
def test_codes_become_one_line(amd: FakeAmd, code: int, words: str) -> None:
    amd.codes[0] = code
    with pytest.raises(DriverError, match=words) as raised:
        AmdDriver().counter_mj(0)
    assert "\n" not in str(raised.value)


def test_who_else_computes_on_it(amd: FakeAmd) -> None:
    assert (
        AmdDriver().occupant(0, lambda pid: pid == 12, memory=True)
        == "process 4711 (train.py) computes on it"
    )
    assert AmdDriver().occupant(0, lambda pid: True, memory=True) is None
    amd.codes[0] = 10
    assert AmdDriver().occupant(0, lambda pid: False, memory=True) is None


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amdsmi", None)
    with pytest.raises(PowerError, match="pip install amdsmi"):
        BoardMeter(AmdDriver(), ManualClock(START))

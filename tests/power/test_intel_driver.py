"""What the kernel's files of Intel's boards tell, and what of them is missing."""

from pathlib import Path

import pytest
from support.vendors import FakeIntel

from carbonsched.power.board_meter import DriverError
from carbonsched.power.intel_driver import IntelDriver


@pytest.fixture
def intel(tmp_path: Path) -> FakeIntel:
    return FakeIntel(tmp_path)


def test_boards_are_in_the_order_of_the_bus_and_rated_by_the_limit_that_is_on(intel: FakeIntel) -> None:
    driver = IntelDriver(intel.hwmon)
    found = driver.open().boards
    assert tuple(board.uuid for board, _ in found) == intel.ids
    device = driver.describe(*found[0], frozenset())
    assert (device.name, device.watts_limit) == ("Intel GPU 0x56c0", 150.0)


def test_the_packages_counter_stands_in_for_the_cards(intel: FakeIntel) -> None:
    folder = intel.folder(0)
    (folder / "energy1_input").rename(folder / "energy2_input")
    assert IntelDriver(intel.hwmon).counter_mj(folder) == 5_000_000_000


def test_a_board_that_counts_nothing_is_said(intel: FakeIntel) -> None:
    (intel.folder(1) / "energy1_input").unlink()
    found = IntelDriver(intel.hwmon).open()
    assert [board.uuid for board, _ in found.boards] == [intel.ids[0]]
    assert found.problems == ("0000:9a:00.0 is not metered: it counts no energy",)


@pytest.mark.parametrize("text", ["", "many", "-"])
def test_a_file_that_holds_no_number_is_an_error(intel: FakeIntel, text: str) -> None:
    (intel.folder(0) / "energy1_input").write_text(text)
    with pytest.raises(DriverError, match="energy1_input is no number"):
        IntelDriver(intel.hwmon).counter_mj(intel.folder(0))


def test_a_box_without_these_files_says_so(tmp_path: Path) -> None:
    with pytest.raises(DriverError, match="cannot be read"):
        IntelDriver(tmp_path / "none").open()

from pathlib import Path

import pytest

from carbonsched.power.rapl_dram import DramCounters


def zone(root: Path, folder: str, name: str, uj: int, most: int = 65_532_610_987) -> Path:
    """A zone of powercap as the kernel shows it, all of them side by side."""
    path = root / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{uj}\n")
    (path / "max_energy_range_uj").write_text(f"{most}\n")
    return path


def server(root: Path) -> Path:
    """Two sockets, each with its memory; the platform's zone; and the first package once more by memory."""
    for socket in range(2):
        zone(root, f"intel-rapl:{socket}", f"package-{socket}", 1_000)
        zone(root, f"intel-rapl:{socket}:0", "dram", 5_000_000)
    zone(root, "intel-rapl:2", "psys", 7_000_000)
    zone(root, "intel-rapl-mmio:0", "package-0", 1_000)
    zone(root, "intel-rapl-mmio:0:0", "dram", 5_000_000)
    return root


def test_the_memory_of_all_sockets_is_added_up_and_the_platforms_counter_is_not(tmp_path: Path) -> None:
    dram = DramCounters.of(str(server(tmp_path)))
    assert dram is not None
    assert sorted(folder.name for folder in dram.before_uj) == ["intel-rapl:0:0", "intel-rapl:1:0"]
    zone(tmp_path, "intel-rapl:0:0", "dram", 9_000_000)
    zone(tmp_path, "intel-rapl:1:0", "dram", 11_000_000)
    zone(tmp_path, "intel-rapl:2", "psys", 99_000_000)
    assert dram.watts(2.0) == pytest.approx((4.0 + 6.0) / 2)
    assert dram.watts(2.0) == 0.0


def test_zones_that_lie_in_their_packages_folder_count_once(tmp_path: Path) -> None:
    """/sys/devices/virtual/powercap/intel-rapl holds them so; the class folder links to the same ones."""
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000)
    zone(tmp_path, "intel-rapl:0/intel-rapl:0:0", "dram", 1_000_000)
    (tmp_path / "intel-rapl:0:0").symlink_to(tmp_path / "intel-rapl:0" / "intel-rapl:0:0")
    dram = DramCounters.of(str(tmp_path))
    assert dram is not None
    zone(tmp_path, "intel-rapl:0/intel-rapl:0:0", "dram", 4_000_000)
    assert dram.watts(1.0) == pytest.approx(3.0)


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000)
    zone(tmp_path, "intel-rapl:0:0", "dram", 9_000_000, most=10_000_000)
    dram = DramCounters.of(str(tmp_path))
    assert dram is not None
    zone(tmp_path, "intel-rapl:0:0", "dram", 500_000, most=10_000_000)
    assert dram.watts(1.0) == pytest.approx(1.5)


def test_without_a_package_or_a_counter_that_can_be_read_there_is_none(tmp_path: Path) -> None:
    assert DramCounters.of(str(tmp_path / "none")) is None
    zone(tmp_path / "client", "intel-rapl:0", "package-0", 1_000)
    assert DramCounters.of(str(tmp_path / "client")) is None, "it has no such zone"
    zone(tmp_path / "psys", "intel-rapl:0", "psys", 1_000)
    zone(tmp_path / "psys", "intel-rapl:0:0", "dram", 1_000)
    assert DramCounters.of(str(tmp_path / "psys")) is None, "psys counts the memory, too"
    broken = server(tmp_path / "broken")
    (broken / "intel-rapl:1:0" / "energy_uj").write_text("no data\n")
    assert DramCounters.of(str(broken)) is None

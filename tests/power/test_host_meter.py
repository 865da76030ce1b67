import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from codecarbon.external.hardware import CPU
from support.manual_clock import ManualClock

from carbonsched.clock import SystemClock
from carbonsched.errors import PowerError
from carbonsched.model.energy import EnergyMethod
from carbonsched.power import host_meter
from carbonsched.power.base import Mark
from carbonsched.power.host_meter import HostMeter, LoadModel, ask_codecarbon
from carbonsched.power.host_model import cpu_model, rated_power
from carbonsched.report.boundary import boundary

T0 = datetime(2026, 3, 1, tzinfo=UTC)


def rapl(root: Path, uj: int, package: int = 0) -> Path:
    """A powercap tree as the kernel shows it, with one package that has used `uj` microjoules."""
    folder = root / "intel-rapl" / f"intel-rapl:{package}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"package-{package}\n")
    (folder / "energy_uj").write_text(f"{uj}\n")
    (folder / "max_energy_range_uj").write_text("262143328850\n")
    return root / "intel-rapl"


def test_the_model_is_estimated_lies_within_the_rated_power_and_says_how(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    meter = HostMeter(clock, rapl_dir=str(tmp_path / "none"))
    [device] = meter.devices
    assert device.watts_limit is not None
    assert device.memory_bytes is not None
    tdp, _ = rated_power(cpu_model())
    ram = device.watts_limit - tdp
    clock.advance(1)
    assert meter.read() == ()
    clock.advance(2)
    [delta] = meter.read()
    assert (delta.device, delta.method) == ("host", EnergyMethod.ESTIMATED)
    assert delta.power_w is not None
    assert 0.1 * tdp + ram - 1e-9 <= delta.power_w <= device.watts_limit
    assert delta.energy_mj == round(delta.power_w * 2 * 1000)
    assert delta.meter.startswith(f"codecarbon:cpu_load,tdp={tdp:g}W")
    assert f"+ram={ram:g}W" in delta.meter


def test_load_raises_the_estimate(tmp_path: Path) -> None:
    meter = HostMeter(SystemClock(), rapl_dir=str(tmp_path / "none"))
    time.sleep(0.3)
    meter.read()
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        [busy] = meter.read()
    finally:
        burner.kill()
        burner.wait()
    tdp, _ = rated_power(cpu_model())
    assert busy.power_w is not None
    assert busy.power_w > 0.1 * tdp + (meter.devices[0].watts_limit or 0) - tdp


@pytest.mark.parametrize("busy", [0, 7, 50, 100])
def test_the_load_is_turned_into_power_as_codecarbon_itself_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    """Of 100 ticks since it was asked last so many were busy; those that guests took are in the user's already."""
    stat = tmp_path / "stat"
    monkeypatch.setattr(host_meter, "_STAT", stat)
    stat.write_text("cpu  100 20 30 4000 50 6 7 8 90 1\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
    model = LoadModel(tdp_w=200.0)
    stat.write_text(f"cpu  {100 + busy} 20 30 {4000 + 60 - busy} {50 + 40} 6 7 8 {90 + busy} 1\n")
    theirs = CPU("", "cpu_load", "any", 200)
    monkeypatch.setattr(theirs._cpu_load_meter, "percent", lambda: float(busy))
    assert model(1.0) == pytest.approx(float(theirs.total_power().W))
    assert model(1.0) == pytest.approx(20.0), "no time has passed"


def test_codecarbon_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    """It would take 25 MB of the daemon's ever after."""
    program = f"""
import sys
from carbonsched.clock import SystemClock
from carbonsched.power.host_meter import HostMeter
print(HostMeter(SystemClock(), rapl_dir={str(tmp_path / "none")!r}).devices[0].watts_limit > 0)
assert not {{"codecarbon", "psutil", "pandas"}} & set(sys.modules), sys.modules.keys()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "True\n", done.stderr


def test_a_codecarbon_that_is_broken_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "codecarbon.py").write_text("raise ImportError('its table is gone')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(PowerError, match=r"codecarbon could not say what this box is: .*its table is gone"):
        ask_codecarbon("none")


def test_rapl_is_measured_and_survives_the_wrap_of_its_counter(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    root = rapl(tmp_path, 262_143_000_000)
    rapl(tmp_path, 1_000_000_000, package=1)
    meter = HostMeter(clock, rapl_dir=str(root))
    clock.advance(1)
    assert meter.read() == ()
    rapl(tmp_path, 9_671_150)
    rapl(tmp_path, 1_020_000_000, package=1)
    clock.advance(2)
    [delta] = meter.read()
    ram = float(delta.meter.rpartition("ram=")[2].removesuffix("W"))
    assert delta.meter.startswith("codecarbon:rapl+ram=")
    # package 0: 328.85 mJ to the wrap and 9.67 J behind it in its 10 J; package 1: 20 J; over 2 s
    assert delta.power_w == pytest.approx((10.0 + 20.0) / 2 + ram, rel=1e-3)
    assert delta.method is EnergyMethod.ESTIMATED


def test_a_short_absence_is_bridged_by_the_mean_power(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    meter = HostMeter(clock, rapl_dir=str(tmp_path / "none"), life="boot")
    clock.advance(100)
    meter.resume({"host": Mark(T0, None, "boot:0", 40.0)})
    [delta] = meter.read()
    assert (delta.bridged, delta.coverage, delta.counter_epoch) == (True, 0.0, "boot:1")
    assert delta.method is EnergyMethod.ESTIMATED
    assert delta.energy_mj is not None
    assert delta.power_w is not None
    assert delta.energy_mj == round(delta.power_w * 100 * 1000)
    assert delta.power_w > 20.0


def test_memory_that_rapl_counts_is_measured_and_no_more_taken_to_draw_a_constant(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    root = rapl(tmp_path, 1_000_000_000)
    rapl(tmp_path, 0, package=1)
    for zone, name in (("intel-rapl:2", "psys"), ("intel-rapl:0/intel-rapl:0:0", "dram")):
        shutil.copytree(root / "intel-rapl:0", root / zone)
        (root / zone / "name").write_text(f"{name}\n")
    meter = HostMeter(clock, rapl_dir=str(root))
    clock.advance(1)
    assert meter.read() == ()
    rapl(tmp_path, 1_020_000_000)
    rapl(tmp_path, 10_000_000, package=1)
    (root / "intel-rapl:0/intel-rapl:0:0/energy_uj").write_text("1007000000\n")
    (root / "intel-rapl:2/energy_uj").write_text("9000000000\n")
    clock.advance(2)
    [delta] = meter.read()
    assert (delta.meter, delta.method) == ("codecarbon:rapl+dram", EnergyMethod.ESTIMATED)
    assert delta.power_w == pytest.approx((20.0 + 10.0 + 7.0) / 2, rel=1e-3), (
        "psys counts all of it once more"
    )
    assert boundary([("host", delta.meter)]).inside == ("CPU (rapl)", "RAM (rapl)")
    assert "RAM" not in boundary([("host", delta.meter)]).outside


@pytest.mark.parametrize(
    ("model", "watts", "known"),
    [
        ("Intel(R) Core(TM) i7-7600U CPU @ 2.80GHz", 15.0, True),
        ("AMD EPYC 7763 64-Core Processor", None, True),
        ("A processor nobody made", None, False),
        ("", None, False),
    ],
)
def test_rated_power_is_codecarbons(model: str, watts: float | None, known: bool) -> None:
    found, is_known = rated_power(model)
    assert is_known is known
    assert found > 0
    if watts is not None:
        assert found == watts


def test_rated_power_is_what_codecarbon_itself_would_take_and_needs_no_pandas() -> None:
    """Against codecarbon's own look-up, in a process of its own since that one loads pandas."""
    program = """
import sys
from carbonsched.power.host_model import cpu_model, rated_power
from carbonsched.report.boundary import boundary
ours = {m: rated_power(m) for m in (cpu_model(), 'Intel(R) Xeon(R) CPU E5-2620 v3 @ 2.40GHz', 'AMD EPYC 7543P 32-Core Processor', 'AMD Ryzen 9 5950X')}
assert 'pandas' not in sys.modules
from codecarbon.core.cpu import TDP
tdp = TDP()
assert ours[cpu_model()][0] == tdp.tdp, (ours, tdp.tdp)
for model, (watts, known) in ours.items():
    assert (tdp._get_cpu_power_from_registry(model) == watts) is known, (model, watts)
print(sum(known for _, known in ours.values()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2


def test_a_read_costs_less_than_a_hundredth_of_a_core_at_one_hertz(tmp_path: Path) -> None:
    clock = ManualClock(T0)
    meter = HostMeter(clock, rapl_dir=str(tmp_path / "none"))
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(50):
        clock.advance(1)
        meter.read()
    assert (time.process_time() - cpu) / 50 < 0.01
    assert (time.perf_counter() - wall) / 50 < 0.05

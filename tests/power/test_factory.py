from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from support.manual_clock import ManualClock

from carbonsched.clock import Clock
from carbonsched.config import Config
from carbonsched.errors import InputError, PowerError
from carbonsched.power import build_meter
from carbonsched.power.base import Mark, Meter, MeterSettings
from carbonsched.power.config import PowerConfig
from carbonsched.power.nvml_meter import NvmlMeter
from carbonsched.power.replay import ReplayMeter, read_curve

CLOCK = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))


def has_gpu() -> bool:
    try:
        NvmlMeter(CLOCK).close()
    except PowerError:
        return False
    return True


def test_replay_and_host_are_read_as_one(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("seconds,watts\n0,200\n")
    clock = ManualClock(datetime(2026, 3, 1, tzinfo=UTC))
    meter = build_meter(PowerConfig(gpu="replay", replay_file=str(tmp_path / "w.csv")).meters, clock)
    assert [device.id for device in meter.devices] == ["replay-0", "host"]
    charged = read_curve(tmp_path / "w.csv").counter_mj(clock.at)
    meter.resume({"replay-0": Mark(clock.at, charged, "replay:0", 200.0)})
    clock.advance(1)
    assert [delta.device for delta in meter.read()] == ["replay-0"]
    clock.advance(1)
    assert {delta.device for delta in meter.read()} == {"replay-0", "host"}
    meter.close()


@pytest.mark.parametrize(
    ("power", "words"),
    [
        ({"gpu": "replay"}, "power.replay_file: is missing"),
        ({"gpu": "none", "replay_file": "w.csv"}, "power.replay_file: is read only with"),
        ({"gpu": "none", "host": "none"}, "power.host: nothing is metered"),
    ],
)
def test_a_config_that_does_not_fit_together_is_refused(power: dict[str, str], words: str) -> None:
    with pytest.raises(InputError) as caught:
        build_meter(Config.parse({"feeds": [{"provider": "neso"}], "power": power}).power.meters, CLOCK)
    assert words in str(caught.value)


def test_a_gpu_that_is_asked_for_and_not_there_is_an_error_that_names_the_mend() -> None:
    if has_gpu():
        pytest.skip("this box has a GPU")
    with pytest.raises(PowerError, match=r"libnvidia-ml\.so\.1 is not installed|driver is not loaded"):
        build_meter(PowerConfig(gpu="nvml").meters, CLOCK)
    assert [device.id for device in build_meter(PowerConfig(gpu="auto").meters, CLOCK).devices] == ["host"]


class Same(MeterSettings):
    provider: Literal["same"] = "same"
    path: str

    def build(self, clock: Clock) -> Meter:
        return ReplayMeter(Path(self.path), clock)


def test_a_device_that_two_meters_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_text("seconds,watts\n0,200\n")
    twice = [Same(path=str(tmp_path / "w.csv"))] * 2
    with pytest.raises(InputError, match=r"power\.host: two meters read device 'replay-0'; drop one of them"):
        build_meter(twice, CLOCK)

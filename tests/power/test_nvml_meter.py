"""The real pynvml and the real meter over a stand-in for the vendor's library, in a process of their own."""

import json
import shutil
import textwrap
from datetime import datetime
from pathlib import Path

import pynvml
import pytest
from support.nvml.fake import build_fake_nvml, run_with_fake_nvml

from carbonsched.power.nvml_boards import REASONS, power_error

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build the stand-in")

PRELUDE = """
import json, os, pathlib, time
from datetime import timedelta
from carbonsched.clock import SystemClock
from carbonsched.power.base import Mark
from carbonsched.power.nvml_meter import NvmlMeter
SETTINGS = pathlib.Path(os.environ["FAKE_NVML_FILE"])
class Clock(SystemClock):
    ahead = 0.0
    def monotonic(self): return super().monotonic() + self.ahead
def show(*deltas): print(json.dumps([d.dump() for d in deltas]))
clock = Clock()
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fake_nvml(tmp_path_factory.mktemp("nvml"))


def run(
    library: Path, tmp_path: Path, program: str, settings: str = "", **env: str
) -> list[list[dict[str, object]]]:
    file = tmp_path / "settings"
    file.write_text(settings)
    out = run_with_fake_nvml(library, PRELUDE + textwrap.dedent(program), FAKE_NVML_FILE=str(file), **env)
    return [json.loads(line) for line in out.splitlines()]


def seconds(delta: dict[str, object]) -> float:
    start, end = (datetime.fromisoformat(str(delta[key])) for key in ("start", "end"))
    return (end - start).total_seconds()


def test_energy_is_the_counters_difference_on_every_device(library: Path, tmp_path: Path) -> None:
    [devices, deltas] = run(
        library,
        tmp_path,
        """
        meter = NvmlMeter(clock)
        print(json.dumps([[b.id, b.kind, b.name, b.index, b.watts_limit, b.memory_bytes] for b in meter.devices]))
        assert meter.read() == ()
        time.sleep(0.3)
        show(*meter.read())
        meter.close()
        """,
        FAKE_NVML_WATTS="400",
        FAKE_NVML_DEVICES="2",
    )
    assert [b[0] for b in devices] == [
        "GPU-00000000-fake-0000-0000-000000000000",
        "GPU-00000000-fake-0000-0000-000000000001",
    ]  # type: ignore[index]
    assert devices[1][1:] == ["gpu", "Fake GPU", 1, 700.0, 80 << 30]  # type: ignore[index]
    assert len(deltas) == 2
    for delta in deltas:
        assert delta["method"] == "counter"
        assert delta["energy_mj"] == delta["counter_end_mj"] - delta["counter_start_mj"]  # type: ignore[operator]
        assert delta["power_w"] == pytest.approx(400, rel=0.05)
        assert delta["energy_mj"] == pytest.approx(400_000 * seconds(delta), rel=0.05)


def test_a_successor_bridges_by_the_counter(library: Path, tmp_path: Path) -> None:
    [first, bridge] = run(
        library,
        tmp_path,
        """
        meter = NvmlMeter(clock)
        meter.read(); time.sleep(0.1)
        [last] = meter.read()
        show(last)
        meter.close(); time.sleep(0.4)
        successor = NvmlMeter(clock)
        successor.resume({last.device: Mark(last.end, last.counter_end_mj, last.counter_epoch, last.power_w)})
        show(*successor.read())
        """,
    )
    assert bridge[0]["bridged"] is True
    assert bridge[0]["method"] == "counter"
    assert bridge[0]["counter_start_mj"] == first[0]["counter_end_mj"]
    assert seconds(bridge[0]) >= 0.4
    # the end may be some time after the counter was read, where others have the processor
    assert bridge[0]["energy_mj"] == pytest.approx(250_000 * seconds(bridge[0]), rel=0.3)


def test_a_device_without_a_counter_is_integrated(library: Path, tmp_path: Path) -> None:
    [deltas] = run(
        library,
        tmp_path,
        "meter = NvmlMeter(clock)\nmeter.read(); time.sleep(0.2)\nshow(*meter.read())",
        "energy_code=3\nwatts=100\n",
    )
    assert deltas[0]["method"] == "integrated"
    assert deltas[0]["counter_end_mj"] is None
    assert deltas[0]["energy_mj"] == pytest.approx(100_000 * seconds(deltas[0]), rel=0.05)


def test_bursts_between_two_reads_are_integrated_on_boards_without_a_counter_and_on_those_alone(
    library: Path, tmp_path: Path
) -> None:
    """Bursts of a tenth of a second, of which no read meets one: board 0 has no counter, board 1 has one and tells what is true."""
    deltas = run(
        library,
        tmp_path,
        """
        from benchmarks.meters import is_burst
        BASE = 1767225600
        def calm():
            while is_burst(int((time.time() - BASE) * 10)): time.sleep(0.005)
        def bare(meter): return next(d for d in meter.read() if d.device.endswith("0"))
        often, seldom = NvmlMeter(clock, sample_hz=10.0), NvmlMeter(clock)
        often.read(); seldom.read()
        for _ in range(8):
            time.sleep(0.6); calm()
            lone = bare(seldom)
            both = sorted(often.read(), key=lambda d: d.device)
            show(*both, lone)
            assert [len(d.profile) > 2 for d in both] == [True, False], both
        assert list(often._sampler._readings) == ["GPU-00000000-fake-0000-0000-000000000000"]
        often.close()
        """,
        "energy_code.0=3\nwatts=100\nbursts=400\n",
        FAKE_NVML_DEVICES="2",
    )
    assert {row[0]["method"] for row in deltas} == {"integrated"}
    assert {row[0]["coverage"] for row in deltas} == {1.0}
    true, often, seldom = (sum(float(row[i]["energy_mj"]) for row in deltas) for i in (1, 0, 2))  # type: ignore[arg-type]
    assert often == pytest.approx(true, rel=0.12)
    assert seldom < 0.8 * true


def test_where_every_board_has_a_counter_nothing_is_read_in_between(library: Path, tmp_path: Path) -> None:
    [names] = run(
        library,
        tmp_path,
        """
        import threading
        meter = NvmlMeter(clock, sample_hz=10.0)
        meter.read(); time.sleep(0.1); meter.read()
        print(json.dumps([thread.name for thread in threading.enumerate()]))
        """,
        FAKE_NVML_DEVICES="2",
    )
    assert names == ["MainThread"]


@pytest.mark.parametrize(
    ("code", "words"), [(15, "the GPU is lost"), (4, "no permission"), (16, "must be reset")]
)
def test_a_device_that_breaks_is_null_with_the_reason_and_comes_back(
    library: Path, tmp_path: Path, code: int, words: str
) -> None:
    [broken, back] = run(
        library,
        tmp_path,
        f"""
        meter = NvmlMeter(clock)
        meter.read(); time.sleep(0.05)
        SETTINGS.write_text("energy_code={code}\\n")
        show(*meter.read()); time.sleep(0.05)
        SETTINGS.write_text("")
        show(*meter.read())
        """,
    )
    assert (broken[0]["energy_mj"], broken[0]["method"]) == (None, "unavailable")
    assert words in str(broken[0]["reason"])
    assert f"code {code}" in str(broken[0]["reason"])
    assert back[0]["method"] == "estimated"
    assert back[0]["counter_start_mj"] is not None


def test_power_that_cannot_be_read_does_not_matter_beside_a_counter(library: Path, tmp_path: Path) -> None:
    [deltas] = run(
        library,
        tmp_path,
        "m = NvmlMeter(clock)\nm.read(); time.sleep(0.1)\nshow(*m.read())",
        "power_code=3\n",
    )
    assert deltas[0]["method"] == "counter"
    assert deltas[0]["power_w"] == pytest.approx(250, rel=0.1)


def test_a_reloaded_driver_is_a_new_epoch(library: Path, tmp_path: Path) -> None:
    [reset, after] = run(
        library,
        tmp_path,
        """
        meter = NvmlMeter(clock)
        meter.read(); time.sleep(0.1)
        SETTINGS.write_text(f"base={time.time() - 1:.3f}\\n")
        assert meter.read() == (); time.sleep(0.1)  # one fall proves nothing
        show(*meter.read()); time.sleep(0.1)
        show(*meter.read())
        """,
    )
    assert reset[0]["method"] == "integrated"
    assert "the driver was reloaded" in str(reset[0]["reason"])
    assert str(reset[0]["counter_epoch"]).endswith(":1")
    assert (after[0]["method"], after[0]["counter_epoch"]) == ("counter", reset[0]["counter_epoch"])


def test_a_board_that_was_blind_while_the_driver_was_reloaded_is_of_a_new_epoch_too(
    library: Path, tmp_path: Path
) -> None:
    [blind, back] = run(
        library,
        tmp_path,
        """
        meter = NvmlMeter(clock)
        meter.read(); time.sleep(0.1)
        SETTINGS.write_text("devices=3\\nenergy_code.2=10\\n")
        meter.read(); time.sleep(0.1)
        SETTINGS.write_text(f"devices=3\\nenergy_code.2=10\\nbase={time.time() - 1:.3f}\\n")
        for _ in range(2):
            found = meter.read(); time.sleep(0.1)
        show(*found)
        SETTINGS.write_text(f"devices=3\\nbase={time.time() - 1:.3f}\\n")
        for _ in range(3):
            found = meter.read(); time.sleep(0.1)
        show(*found)
        """,
        "devices=3\n",
    )
    assert [str(row["counter_epoch"])[-2:] for row in blind] == [":1"] * 3
    assert [row["method"] for row in blind] == ["integrated", "integrated", "unavailable"]
    assert [row["method"] for row in back] == ["counter"] * 3


def test_a_driver_that_went_away_is_opened_again(library: Path, tmp_path: Path) -> None:
    [gone, still, back] = run(
        library,
        tmp_path,
        """
        meter = NvmlMeter(clock)
        meter.read(); time.sleep(0.02)
        SETTINGS.write_text("init_code=9\\n")
        show(*meter.read()); time.sleep(0.02)
        Clock.ahead += 31
        show(*meter.read()); time.sleep(0.02)
        SETTINGS.write_text("")
        Clock.ahead += 31
        show(*meter.read())
        """,
    )
    assert "not initialized" in str(gone[0]["reason"])
    assert still[0]["method"] == "unavailable"
    assert back[0]["energy_mj"] is not None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("init_code=9\n", "the NVIDIA driver is not loaded"),
        ("devices=0\n", "shows no device"),
        ("init_code=18\n", "differ in version"),
    ],
)
def test_without_a_device_there_is_no_meter(library: Path, tmp_path: Path, settings: str, words: str) -> None:
    [[message]] = run(
        library,
        tmp_path,
        """
        from carbonsched.errors import PowerError
        try:
            NvmlMeter(clock)
        except PowerError as e:
            print(json.dumps([{"error": str(e)}]))
        """,
        settings,
    )
    assert words in str(message["error"])


def test_auto_takes_the_gpu_and_the_host_together(library: Path, tmp_path: Path) -> None:
    [[names]] = run(
        library,
        tmp_path,
        """
        from carbonsched.power.config import PowerConfig
        from carbonsched.power import build_meter
        meter = build_meter(PowerConfig().meters, clock)
        print(json.dumps([{"devices": [b.kind for b in meter.devices]}]))
        meter.read(); time.sleep(0.3); deltas = meter.read(); meter.close()
        """,
        "mig=1\n",
    )
    assert names["devices"] == ["gpu", "host"]


def test_auto_waits_for_a_driver_that_answers_late(library: Path, tmp_path: Path) -> None:
    """And for one board of two: what NVML did not show at the start is metered from when it does, on from the ledger's mark."""
    [names, deltas, said] = run(
        library,
        tmp_path,
        """
        import logging
        said = []
        class Keep(logging.Handler):
            def emit(self, record): said.append([record.levelname, record.getMessage()])
        logging.getLogger().addHandler(Keep())
        from carbonsched.power.config import PowerConfig
        from carbonsched.power import build_meter
        meter = build_meter(PowerConfig().meters, clock)
        names = [[b.id for b in meter.devices]]
        meter.resume({"GPU-00000000-fake-0000-0000-000000000000": Mark(clock.now() - timedelta(seconds=60), 0, "x:0", 90.0)})
        for settings in ("init_code=9\\n", "handle_code.1=15\\n", ""):
            SETTINGS.write_text(settings)
            Clock.ahead += 31
            bridge = meter.read()
            names.append([b.id[-1] for b in meter.devices if b.kind == "gpu"])
            if settings.startswith("handle"): first = bridge
        print(json.dumps(names))
        show(*first)
        print(json.dumps(said))
        """,
        "init_code=9\n",
        FAKE_NVML_DEVICES="2",
    )
    assert names == [["host"], [], ["0"], ["0", "1"]], said
    assert [d["bridged"] for d in deltas if d["device"] != "host"] == [True]
    levels, texts = zip(*said, strict=True)
    assert set(levels) == {"WARNING"}
    absent = [text for text in texts if "driver is not loaded" in text]
    assert len(absent) == 1, "what stays as it is is said once"
    assert "no GPU is metered, jobs get none" in absent[0]
    assert any("GPU 1 is not metered: NVML: the GPU is lost" in text for text in texts)
    assert sum("answers now and is metered" in text for text in texts) == 2


def test_boards_are_chosen_by_the_config_and_by_the_daemons_own_environment(
    library: Path, tmp_path: Path
) -> None:
    [found] = run(
        library,
        tmp_path,
        """
        from carbonsched.errors import CarbonschedError
        from carbonsched.power.nvml import NvmlSettings
        def chosen(boards=(), **env):
            os.environ.pop("CUDA_VISIBLE_DEVICES", None); os.environ.update(env)
            try: return [d.index for d in NvmlSettings(provider="nvml", boards=boards).build(clock).devices]
            except CarbonschedError as e: return str(e)
        seen = [
            chosen(), chosen([1]), chosen(["GPU-00000000-fake-0000-0000-000000000002"]), chosen(["nvidia l4"]), chosen([2, 0]),
            chosen([7]), chosen(CUDA_VISIBLE_DEVICES=""), chosen(CUDA_VISIBLE_DEVICES="1"),
            chosen(CUDA_VISIBLE_DEVICES="GPU-00000000-fake-0000-0000-000000000000"),
            chosen(CUDA_VISIBLE_DEVICES="1", CUDA_DEVICE_ORDER="PCI_BUS_ID"),
        ]
        print(json.dumps(seen))
        """,
        "name.0=NVIDIA L4\nname.1=NVIDIA A100\nname.2=NVIDIA L40S\ndisplay.2=1\n",
        FAKE_NVML_DEVICES="3",
    )
    assert found[:5] == [[0, 1], [1], [2], [0], [0, 2]]
    assert "power.boards: names no board of this box: 0 GPU-0000" in str(found[5])
    assert "no board is left to this daemon" in str(found[6])
    assert "name UUIDs, or set CUDA_DEVICE_ORDER=PCI_BUS_ID" in str(found[7])
    assert found[8:] == [[0], [1]]


def test_who_else_uses_a_board_is_told(library: Path, tmp_path: Path) -> None:
    [found] = run(
        library,
        tmp_path,
        """
        meter, me = NvmlMeter(clock), os.getpid()
        ask = lambda mine=(): [meter.occupant(d.id, lambda pid: pid in mine) for d in meter.devices]
        seen = ask()
        SETTINGS.write_text(f"other_pid.1={me}\\n"); seen += ask() + ask((me,))
        SETTINGS.write_text("used_gib.0=30\\n"); seen += ask()
        print(json.dumps(seen))
        """,
        FAKE_NVML_DEVICES="2",
    )
    assert found[:3] == [None, None, None]
    assert str(found[3]).startswith("process ")
    assert "(python" in str(found[3])
    assert "with 2.0 GiB" in str(found[3])
    assert found[4:6] == [None, None]
    assert "30.0 GiB of its memory are in use" in str(found[6])
    assert found[7] is None


def test_a_counter_that_is_refused_once_is_asked_again(library: Path, tmp_path: Path) -> None:
    """One that has worked is waited for; one that never did, or stays away, is integrated and asked again later."""
    deltas = run(
        library,
        tmp_path,
        """
        meter = NvmlMeter(clock)
        def look(settings, ahead=0.05):
            SETTINGS.write_text(settings); time.sleep(0.05); Clock.ahead += ahead
            show(*meter.read())
        meter.read()
        look(""); look("energy_code=3\\n"); look("")
        look("energy_code=3\\n"); look("energy_code=3\\n", 31); look("", 31); look("")
        """,
    )
    methods = [delta[0]["method"] for delta in deltas]
    assert methods[:4] == ["counter", "unavailable", "estimated", "unavailable"]
    assert methods[4] == "integrated"
    assert methods[6] == "counter"


def test_mig_instances_and_rated_speed_are_known(library: Path, tmp_path: Path) -> None:
    [found] = run(
        library,
        tmp_path,
        """
        [a, b] = NvmlMeter(clock).devices
        print(json.dumps([a.split, [[i.id, i.slices] for i in a.instances], b.split, list(b.instances), b.peak_flops.of("bf16")]))
        """,
        "mig.0=1\nslices.101=4\n",
        FAKE_NVML_DEVICES="2",
    )
    mig = "MIG-00000000-fake-0000-0000-00000000000"
    assert found == [True, [[mig + "0", 3], [mig + "1", 4]], False, [], 311_900_000_000_000.0]  # type: ignore[comparison-overlap]


@pytest.mark.parametrize("code", sorted(REASONS))
def test_every_code_has_words_of_its_own_on_one_line(code: int) -> None:
    message = str(power_error(pynvml.NVMLError(code)))
    assert REASONS[code] in message
    assert "\n" not in message


def test_an_unheard_of_code_is_told_by_number() -> None:
    assert "(code 26)" in str(power_error(pynvml.NVMLError(26)))


def test_a_board_that_a_successor_does_not_find_is_unknown_until_it_answers(
    library: Path, tmp_path: Path
) -> None:
    [lost, back, late] = run(
        library,
        tmp_path,
        """
        meter = NvmlMeter(clock)
        meter.read(); time.sleep(0.1)
        marks = {d.device: Mark(d.end, d.counter_end_mj, d.counter_epoch, d.power_w) for d in meter.read()}
        meter.close()
        SETTINGS.write_text("devices=2\\nhandle_code.1=15\\n")
        successor = NvmlMeter(clock)
        successor.resume(marks)
        assert len(successor.devices) == 1
        time.sleep(0.1)
        show(*(d for d in successor.read() if d.device.endswith("1")))
        SETTINGS.write_text("devices=2\\n")
        clock.ahead = 31
        time.sleep(0.1)
        found = [d for d in successor.read() if d.device.endswith("1")]
        assert len(successor.devices) == 2
        show(*(d for d in found if not d.recovered))
        show(*(d for d in found if d.recovered))
        """,
        "devices=2\n",
    )
    assert (lost[0]["method"], lost[0]["energy_mj"]) == ("unavailable", None)
    assert lost[0]["reason"] == "the board does not answer"
    assert late[0]["start"] == lost[0]["start"]
    assert late[0]["counter_end_mj"] == back[0]["counter_start_mj"], "the counter tells what nobody saw"


def test_a_board_of_an_earlier_boot_is_not_missed(library: Path, tmp_path: Path) -> None:
    [deltas] = run(
        library,
        tmp_path,
        """
        meter = NvmlMeter(clock)
        gone = Mark(clock.now() - timedelta(days=1), 5, "another-boot:0", 90.0)
        meter.resume({"GPU-00000000-fake-0000-0000-000000000007": gone})
        meter.read(); time.sleep(0.1)
        show(*meter.read())
        """,
    )
    assert [str(delta["device"])[-1] for delta in deltas] == ["0"]

"""Why torch sees no board, said by name; and time that waits for the device. A stand-in for torch.cuda: there is no board here."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from carbonsched.errors import InputError
from trainer import device

GIVEN = "GPU-0000000a-0000-0000-0000-000000000000"


@pytest.fixture
def dev(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """/dev of a box with a board and a torch for CUDA 13.0 that sees none."""
    monkeypatch.setattr(device, "DEV", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv(device.VISIBLE, raising=False)
    (tmp_path / "nvidiactl").touch()
    (tmp_path / "nvidia-uvm").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("autocast", "dtype", "able", "wanted"),
    [
        ("auto", "fp32", True, True),
        ("auto", "fp32", False, False),
        ("auto", "bf16", True, False),
        ("bf16", "fp32", False, True),
        ("off", "fp32", True, False),
        (None, "fp32", True, False),
    ],
)
def test_bf16_is_taken_of_itself_on_a_board_that_has_it(
    monkeypatch: pytest.MonkeyPatch, autocast: str | None, dtype: str, able: bool, wanted: bool
) -> None:
    monkeypatch.setattr(device, "has_bf16", lambda: able)
    assert device.runs_in_bf16(autocast, dtype) is wanted


def test_no_board_has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert not device.has_bf16()


def no_cuda_build(dev: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.version, "cuda", None)


def no_libcuda(dev: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(device, "driver_cuda", lambda: None)


def old_driver(dev: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(device, "driver_cuda", lambda: 12040)


def no_uvm(dev: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(device, "driver_cuda", lambda: 13000)
    (dev / "nvidia-uvm").unlink()


def closed_uvm(dev: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(device, "driver_cuda", lambda: 13000)
    patch.setattr(device.os, "access", lambda *_: False)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (no_cuda_build, "is a build without CUDA"),
        (no_libcuda, "NVIDIA_DRIVER_CAPABILITIES=compute,utility"),
        (old_driver, "the driver speaks 12.4; install driver 580 or newer"),
        (no_uvm, "modprobe nvidia-uvm"),
        (closed_uvm, "DeviceAllow=char-nvidia*"),
    ],
)
def test_each_cause_is_said_by_run_and_by_check(
    dev: Path,
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[Path, pytest.MonkeyPatch], None],
    words: str,
) -> None:
    break_it(dev, monkeypatch)
    assert words in str(device.note_problem())
    monkeypatch.setenv(device.VISIBLE, GIVEN)
    with pytest.raises(InputError) as caught:
        device.check_board()
    assert words in str(caught.value)
    assert GIVEN in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("visible", ["", "0", None])
def test_who_was_given_no_board_trains_where_there_is_none(
    dev: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    if visible is not None:
        monkeypatch.setenv(device.VISIBLE, visible)
    device.check_board()


def test_check_says_nothing_where_boards_are_hidden_or_there_are_none(
    dev: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device.VISIBLE, "")
    assert device.note_problem() is None
    monkeypatch.delenv(device.VISIBLE)
    (dev / "nvidiactl").unlink()
    assert device.note_problem() is None


def test_a_board_is_called_as_nvml_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        uuid = GIVEN.removeprefix("GPU-")

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties())
    assert device.board_uuid(0) == GIVEN
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: object())
    assert device.board_uuid(0) is None


def test_time_is_read_when_the_device_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    began = device.device_seconds()
    assert device.device_seconds() - began < 0.05
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: time.sleep(0.1))
    assert device.device_seconds() - began >= 0.1


def test_peak_memory_is_what_others_could_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True, max_memory_reserved=lambda: 5 << 30, max_memory_allocated=lambda: 3 << 30
    )
    monkeypatch.setattr("trainer.device.torch", SimpleNamespace(cuda=cuda))
    assert device.peak_memory() == 5 << 30
    cuda.is_available = lambda: False
    assert device.peak_memory() is None


def test_states_come_to_the_host_in_one_copy_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a tensor of a board: what is read before its stream was waited for would be garbage."""
    log: list[str] = []

    class OnBoard:
        device, shape, dtype = SimpleNamespace(type="cuda"), (2, 3), torch.float32

        def detach(self) -> "OnBoard":
            return self

    class Host:
        def copy_(self, source: object, *, non_blocking: bool) -> None:
            log.append(f"copy non_blocking={non_blocking}")

    def empty(shape: object, *, dtype: object, pin_memory: bool) -> Host:
        log.append(f"pinned={pin_memory}")
        return Host()

    stream = SimpleNamespace(synchronize=lambda: log.append("waited"))
    stand_in = SimpleNamespace(empty=empty, cuda=SimpleNamespace(current_stream=lambda _: stream))
    monkeypatch.setattr("trainer.device.torch", stand_in)
    device.to_host(OnBoard())  # type: ignore[arg-type]
    assert log == ["pinned=True", "copy non_blocking=True", "waited"]


def test_no_file_of_the_trainer_takes_time_another_way() -> None:
    """Whatever measures work must wait for the device; those named here wait, or time the CPU."""
    root = Path(device.__file__).parent
    waits = {"job/directives.py", "training/callback.py", "commands/run.py", "bench/runner.py"}
    own = {"device.py", "bench/select.py"} | waits
    clocks = re.compile(r"time\.(monotonic|perf_counter|time|process_time)\(")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if clocks.search(_code(path))}
    assert found <= own
    assert len(clocks.findall((root / "training/callback.py").read_text())) == 2, "between two events alone"


def _code(path: Path) -> str:
    """Without what is shown in docstrings."""
    return re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)

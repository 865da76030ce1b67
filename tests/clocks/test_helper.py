"""The real helper over the stand-in for NVIDIA's library: whatever ends it, the clocks are the board's own again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clocks import BOARD, ClocksBox
from support.nvml.fake import build_fake_nvml
from support.processes import until

from carbonsched.clocks.request import Request

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to build the stand-in")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_fake_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def box(library: Path, tmp_path: Path) -> Iterator[ClocksBox]:
    box = ClocksBox(tmp_path, library)
    yield box
    box.helper.kill()
    box.helper.communicate()
    until(lambda: not box.guards())


def test_a_lower_clock_is_less_power_until_it_is_reset(box: ClocksBox) -> None:
    assert box.ask(Request("levels", BOARD).write())["clocks"][:2] == [1410, 1395]
    assert box.lock() == {"ok": True, "mhz": 1005}
    assert box.mhz == 1005
    assert box.ask(Request("reset", BOARD).write()) == {"ok": True, "mhz": None}
    assert box.mhz == 0
    assert "none of the clocks" in box.lock(1000)["error"]
    assert "op" in box.ask(b'{"op": "exec"}\n')["error"]
    assert "none of this box" in box.ask(Request("levels", "GPU-12345678-000").write())["error"]
    box.settings.write_text("lock_code=4\n")
    assert "code 4" in box.lock()["error"]


@pytest.mark.parametrize(
    "end", ["SIGTERM", "SIGKILL", "guard and helper", "silence", "stranger", "successor"]
)
def test_clocks_are_restored_on_every_way_out(box: ClocksBox, end: str) -> None:
    assert box.lock(lease_s=1.0 if end == "silence" else 60.0)["ok"]
    assert box.mhz == 1005
    if end == "SIGTERM":
        box.helper.terminate()
        assert box.helper.wait(10) == 0
        assert box.mhz == 0  # by itself, before it ends
    elif end == "SIGKILL":
        box.helper.kill()
    elif end == "stranger":
        box.settings.write_text("other_pid=1\n")
    elif end != "silence":
        for pid in box.guards():
            os.kill(pid, signal.SIGKILL)
        box.helper.kill()
        box.helper.wait(10)
        assert box.mhz == 1005  # nobody is left to reset it
        if end == "successor":
            box.helper.communicate()
            box.helper = box.start()
        else:  # as the unit's ExecStopPost does
            argv = [sys.executable, "-m", "carbonsched.clocks", "reset", "--locked", str(box.root / "locked")]
            assert subprocess.run(argv, env=box.env, check=False).returncode == 0
    until(lambda: box.mhz == 0)
    until(lambda: (box.root / "locked").read_text() == "")


def test_a_guard_that_dies_is_replaced_and_a_second_helper_refused(box: ClocksBox) -> None:
    until(lambda: len(box.guards()) == 1)
    [before] = box.guards()
    os.kill(before, signal.SIGKILL)
    until(lambda: [pid for pid in box.guards() if pid != before] != [])
    second = box.start()
    assert second.wait(30) == 1
    assert "another helper" in second.communicate()[1]
    # nor does a caller who says nothing keep the others waiting
    with socket.socket(socket.AF_UNIX) as mute:
        mute.connect(str(box.root / "sock"))
        assert box.lock()["ok"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be somebody else")
def test_others_are_refused_by_their_uid(box: ClocksBox) -> None:
    (box.root / "sock").chmod(0o666)
    for folder in (box.root, *box.root.parents):
        folder.chmod(folder.stat().st_mode | 0o011) if folder != Path("/") else None
    program = f"""
import os, socket, sys
os.setgid(4242); os.setuid(4242)
s = socket.socket(socket.AF_UNIX); s.connect({str(box.root / "sock")!r})
s.sendall({Request("levels", BOARD).write()!r}); print(s.makefile().readline())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"ok": False, "error": "uid 4242 may not ask"}


def test_it_imports_neither_torch_nor_the_daemon() -> None:
    program = (
        "import sys, carbonsched.clocks.helper as _; "
        "print([m for m in sys.modules if m.partition('.')[0] in ('torch', 'numpy', 'pydantic', 'sqlalchemy', 'requests')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""The daemon as one process: what it leaves out, and how it comes and goes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from support.daemon import DaemonProcess

HEAVY = ("torch", "transformers", "datasets", "accelerate", "peft")

RUN = """
import os, signal, sys, threading
from pathlib import Path
from carbonsched.daemon import run
threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
code = run(Path(sys.argv[1]))
print(code, [name for name in sys.argv[2:] if name in sys.modules])
"""


def test_importing_and_running_the_daemon_leaves_the_trainers_libraries_out(tmp_path: Path) -> None:
    box = DaemonProcess(tmp_path)
    argv = [sys.executable, "-c", RUN, str(box.root / "config.toml"), *HEAVY]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "0 []", done.stderr


def test_sigterm_ends_it_cleanly_and_the_ledger_verifies(tmp_path: Path) -> None:
    box = DaemonProcess(tmp_path).start()
    assert box.get("/v1/grid")["now"]["g_per_kwh"] in (300, 500)
    assert box.stop() == 0
    assert not box.socket.exists()
    box.start()
    assert box.get("/v1/audit")["ok"]
    assert box.stop() == 0


def test_a_second_daemon_on_the_same_state_is_refused(tmp_path: Path) -> None:
    box = DaemonProcess(tmp_path).start()
    second = box.cli("daemon", "--config", str(box.root / "config.toml"), check=False)
    assert second.returncode == 1
    assert len(second.stderr.strip().splitlines()) == 1, second.stderr
    assert box.stop() == 0


def test_sighup_takes_over_a_changed_pue_and_keeps_the_old_config_when_the_new_one_is_bad(
    tmp_path: Path,
) -> None:
    box = DaemonProcess(tmp_path).start()
    assert box.process is not None
    file = box.root / "config.toml"

    def says(text: str) -> bool:
        for _ in range(100):
            if text in (box.root / "daemon.log").read_text():
                return True
            time.sleep(0.05)
        return False

    file.write_text(box.config.replace("pue = 1.2", "pue = 0.5"))
    box.process.send_signal(signal.SIGHUP)
    assert says("configuration kept as it was: config.toml: pue")
    file.write_text(box.config.replace("pue = 1.2", "pue = 1.5"))
    box.process.send_signal(signal.SIGHUP)
    assert says("configuration reloaded")
    assert box.stop() == 0

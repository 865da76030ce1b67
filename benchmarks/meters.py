"""Measures our meter beside codecarbon's and Zeus' at boards of a stand-in library, whose energy is known: how true each is, what each costs.

    python -m benchmarks.meters accuracy [--boards 2] [--windows 1,5,20] [--repeats 3] [--others PYTHON]
    python -m benchmarks.meters overhead [--boards 8] [--seconds 60] [--others PYTHON]

The load is bursts of a tenth of a second, 100 W and 400 W, drawn; it is in the library (`tests/support/nvml/fake_nvml.c`), which counts its energy as a
driver's counter does, or answers power alone as boards before Volta do. Others are run by PYTHON, an environment with codecarbon 3 and
zeus; a tool that is not there is `null` with the reason. Needs gcc.

accuracy: each tool meters windows of so many seconds, and is held against the energy of that window: Zeus by `begin_window` and `end_window`,
codecarbon by a tracker of its own (`measure_power_secs` 1), ours by `carbonsched run` around a command, by itself and by a daemon of 1 Hz whose ticks do not
know of the window. The error is of all boards together, in percent. One tool after the other.

overhead: all at once: a daemon at 1 Hz, one at 10 Hz, `codecarbon monitor` each second and at its own ten seconds. CPU: user + system of the
process and its children over `--seconds`, forty seconds after the last one started; memory: VmRSS at the end.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.daemon_at_rest import answers, cpu_s, rss_mb, stop

ROOT: Final = Path(__file__).resolve().parents[1]
LIBRARY: Final = ROOT / "tests" / "support" / "nvml" / "fake_nvml.c"
IDLE_W: Final = 100.0
BURST_W: Final = 400.0
SETTLE_S = 40.0
"""Between the start and the first look at a process's CPU time."""
TOOLS: Final = ("zeus", "codecarbon", "alone", "daemon")

CONFIG: Final = """
state_dir = "{folder}/state"
[[feeds]]
provider = "static"
g_per_kwh = 400
basis = "average-lifecycle"
source = "a benchmark"
[power]
gpu = "nvml"
host = "{host}"
tick_s = {tick_s}
[api]
socket = "{folder}/api.sock"
"""

CODECARBON: Final = """
import json, sys, time
from codecarbon import OfflineEmissionsTracker
for seconds in json.loads(sys.argv[1]):
    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA", measure_power_secs=1, save_to_file=False, log_level="error", allow_multiple_runs=True)
    tracker.start()
    began = time.time()
    time.sleep(seconds)
    ended = time.time()
    tracker.stop()
    print(json.dumps([seconds, began, ended, tracker.final_emissions_data.gpu_energy * 3.6e6]), flush=True)
"""
ZEUS: Final = """
import json, sys, time
from zeus.monitor import ZeusMonitor
if __name__ == "__main__":
    monitor = ZeusMonitor(cpu_indices=[])
    for seconds in json.loads(sys.argv[1]):
        monitor.begin_window("w", sync_execution=False)
        began = time.time()
        time.sleep(seconds)
        ended = time.time()
        used = monitor.end_window("w", sync_execution=False)
        print(json.dumps([seconds, began, ended, sum(used.gpu_energy.values())]), flush=True)
"""
COMMAND: Final = "date +%s.%N; sleep {seconds}; date +%s.%N"


def is_burst(tenth: int) -> bool:
    """Whether this tenth of a second since the load began is a burst; as in the library."""
    x = tenth * 2654435761 & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 2246822519 & 0xFFFFFFFF
    x ^= x >> 13
    return x % 10 < 3


def joules(since_s: float) -> float:
    """What a board has drawn since the load began."""
    tenths = int(since_s * 10)
    whole = sum(BURST_W if is_burst(n) else IDLE_W for n in range(tenths)) / 10
    return whole + (since_s - tenths / 10) * (BURST_W if is_burst(tenths) else IDLE_W)


@dataclass(slots=True)
class Bench:
    """A stand-in library, and what runs over it.

    Example::

        with bench(8, counter=True) as it:
            it.python(CODECARBON, "[1.0]")
    """

    folder: Path
    boards: int
    others: str
    began: float
    env: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def truth(self, start: float, end: float) -> float:
        """Joules of all boards between two times."""
        return self.boards * (joules(end - self.began) - joules(start - self.began))

    def start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(argv, env=self.env, cwd=self.folder, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def told(self, argv: Sequence[str]) -> tuple[list[str], str, str | None]:
        """What a program printed, on both streams, and why it failed."""
        done = subprocess.run(
            argv, env=self.env, cwd=self.folder, capture_output=True, text=True, check=False
        )
        why = (done.stderr.strip().splitlines() or ["it said nothing"])[-1] if done.returncode else None
        return done.stdout.splitlines(), done.stderr, why

    def daemon(self, tick_s: float, host: str) -> tuple[subprocess.Popen[bytes], Path]:
        """One that answers on the socket in its folder."""
        folder = self.folder / f"tick-{tick_s:g}"
        folder.mkdir()
        config = folder / "config.toml"
        config.write_text(CONFIG.format(folder=folder, tick_s=tick_s, host=host))
        process = self.start([sys.executable, "-m", "carbonsched", "daemon", "--config", str(config)])
        while not answers(folder / "api.sock"):
            if process.poll() is not None:
                raise SystemExit("the daemon did not start: " + (self.folder / "log").read_text()[-500:])
            time.sleep(0.05)
        return process, folder


@contextmanager
def bench(boards: int, others: str, *, counter: bool) -> Iterator[Bench]:
    """The library, compiled anew, in front of all that is started; its load begins now."""
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), float(int(time.time()))
        library = folder / "libnvidia-ml.so.1"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(LIBRARY)], check=True)
        # codecarbon asks for no board where this command is missing
        smi = folder / "nvidia-smi"
        smi.write_text("#!/bin/sh\n")
        smi.chmod(0o755)
        path = os.environ.get("PYTHONPATH")
        env = {
            **{key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"},
            "LD_LIBRARY_PATH": str(folder),
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{path}" if path else str(ROOT),
            "FAKE_NVML_DEVICES": str(boards),
            "FAKE_NVML_BASE": repr(began),
            "FAKE_NVML_WATTS": str(IDLE_W),
            "FAKE_NVML_BURSTS": str(BURST_W),
        }
        if not counter:
            env["FAKE_NVML_NO_COUNTER"] = "1"
        it = Bench(folder, boards, others, began, env)
        try:
            yield it
        finally:
            for process in it.processes:
                process.terminate()
            for process in it.processes:
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()


# ---- how true

Windows = list[tuple[float, float, float, float]]
"""(seconds asked for, began, ended, joules of all boards)."""


def by_script(it: Bench, script: str, windows: Sequence[float]) -> tuple[Windows, str | None]:
    file = it.folder / "other.py"
    file.write_text(script)
    lines, _, why = it.told([it.others, str(file), json.dumps(list(windows))])
    return [tuple(json.loads(line)) for line in lines if line.startswith("[")], why


def by_run(it: Bench, windows: Sequence[float], options: Sequence[str]) -> tuple[Windows, str | None]:
    """`carbonsched run` around a command that says when it began and ended."""
    found: Windows = []
    for seconds in windows:
        command = ["sh", "-c", COMMAND.format(seconds=seconds)]
        asked = [
            sys.executable, "-m", "carbonsched", "run", *options, "--device", "all", "--json", "--", *command
        ]  # fmt: skip
        lines, said, why = it.told(asked)
        if why is not None:
            return found, why
        began, ended = (float(line) for line in said.splitlines() if line.replace(".", "").isdigit())
        found.append((seconds, began, ended, json.loads("".join(lines))["energy_j"]))
    return found, None


def ours(it: Bench, tool: str, windows: Sequence[float]) -> tuple[Windows, str | None]:
    if tool == "daemon":
        process, folder = it.daemon(1.0, "none")
        found = by_run(it, windows, ["--socket", str(folder / "api.sock")])
        stop(process)
        return found
    config = it.folder / "alone.toml"
    config.write_text(CONFIG.format(folder=it.folder, tick_s=1.0, host="none"))
    return by_run(it, windows, ["--ledger", str(it.folder / "alone.db"), "--config", str(config)])


def errors(it: Bench, windows: Windows) -> dict[str, Any]:
    """Seconds of a window → mean and worst error in percent, with its sign."""
    found: dict[str, list[float]] = {}
    for seconds, began, ended, told in windows:
        true = it.truth(began, ended)
        found.setdefault(f"{seconds:g}", []).append(100 * (told - true) / true)
    worst = {seconds: max(mine, key=abs) for seconds, mine in found.items()}
    return {
        seconds: {
            "mean_abs": round(statistics.fmean(map(abs, mine)), 2),
            "worst": round(worst[seconds], 2),
        }
        for seconds, mine in found.items()
    }


def accuracy(options: argparse.Namespace) -> dict[str, Any]:
    windows = [float(each) for each in options.windows.split(",")] * options.repeats
    result: dict[str, Any] = {"boards": options.boards, "error_percent": {}}
    for counter in (True, False):
        table = result["error_percent"]["counter" if counter else "power alone"] = {}
        for tool in options.tools.split(","):
            with bench(options.boards, options.others, counter=counter) as it:
                if tool in ("zeus", "codecarbon"):
                    found, why = by_script(it, ZEUS if tool == "zeus" else CODECARBON, windows)
                else:
                    found, why = ours(it, tool, windows)
                table[tool] = errors(it, found) if why is None else {"null": why}
    return result


# ---- what it costs


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    with bench(options.boards, options.others, counter=True) as it:
        running: dict[str, subprocess.Popen[bytes]] = {}
        for tool in options.tools.split(","):
            running[tool] = STARTS[tool](it)
        time.sleep(SETTLE_S)
        before = {tool: cpu_s(process.pid) for tool, process in running.items() if process.poll() is None}
        time.sleep(options.seconds)
        result: dict[str, Any] = {"boards": options.boards, "seconds": options.seconds}
        for tool, process in running.items():
            if tool not in before or process.poll() is not None:
                result[tool] = {"null": (it.folder / "log").read_text().strip().splitlines()[-1]}
                continue
            used = cpu_s(process.pid) - before[tool]
            result[tool] = {
                "cpu_s": round(used, 2),
                "cpu_percent_of_a_core": round(100 * used / options.seconds, 2),
                "rss_mb": round(rss_mb(process.pid), 1),
            }
        return result


def monitor(it: Bench, seconds: int) -> subprocess.Popen[bytes]:
    options = ["--no-api", "--offline", "--country-iso-code", "FRA", "--measure-power-secs", str(seconds)]
    return it.start([it.others, "-m", "codecarbon.cli.main", "monitor", *options])


STARTS: Final[dict[str, Callable[[Bench], subprocess.Popen[bytes]]]] = {
    "ours at 1 Hz": lambda it: it.daemon(1.0, "auto")[0],
    "ours at 10 Hz": lambda it: it.daemon(0.1, "auto")[0],
    "codecarbon at 1 Hz": lambda it: monitor(it, 1),
    "codecarbon at 0.1 Hz": lambda it: monitor(it, 10),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = parser.add_subparsers(dest="what", required=True)
    for name, boards, tools in (("accuracy", 2, TOOLS), ("overhead", 8, tuple(STARTS))):
        mine = kinds.add_parser(name)
        mine.add_argument("--boards", type=int, default=boards)
        mine.add_argument("--others", default=sys.executable, help="a Python that has codecarbon and zeus")
        mine.add_argument("--tools", default=",".join(tools))
    kinds.choices["accuracy"].add_argument("--windows", default="1,5,20")
    kinds.choices["accuracy"].add_argument("--repeats", type=int, default=3)
    kinds.choices["overhead"].add_argument("--seconds", type=float, default=60)
    options = parser.parse_args(argv)
    if shutil.which("gcc") is None:
        raise SystemExit("gcc is not here: it makes the stand-in for the boards' library")
    print(json.dumps((accuracy if options.what == "accuracy" else overhead)(options)))


if __name__ == "__main__":
    main()

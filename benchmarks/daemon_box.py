"""A daemon of its own in a folder, with a job to run: what `benchmarks/gpu_check.py` and `open_end_jobs.py` start, stop and ask."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carbonsched import Client
from carbonsched.errors import UnreachableError

ROOT = Path(__file__).resolve().parents[1]

OVER = ("finished", "failed", "stopped", "cancelled")

CONFIG = """
state_dir = "state"
[[feeds]]
provider = "static"
g_per_kwh = 200
basis = "average-lifecycle"
source = "a check"
[power]
{power}
[api]
socket = "api.sock"
"""

JOB = """
name = "gpu-check"
[model]
name_or_path = "model"
[data]
name_or_path = "{data}"
max_length = 256
[train]
method = "greentrainer"
max_steps = {steps}
segment = {segment}
batch_size = 8
[carbon]
budget_g = 1000.0
may_pause = false
"""


@dataclass(slots=True)
class Box:
    """A daemon of its own in a folder."""

    folder: Path
    board: str | None = None
    """UUID of the one that it may use; None: what it finds."""
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "carbonsched", "daemon", "--config", str(self.folder / "config.toml")],
                stderr=log,
                env=self._env(),
            )
        while not self._answers():
            if self.process.poll() is not None:
                raise RuntimeError((self.folder / "daemon.log").read_text().strip().splitlines()[-1])
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            self._client.version()
        except UnreachableError:
            return False
        return True

    @property
    def _client(self) -> Client:
        """For what is asked again and again: a command a third of a second would take a core from daemon and trainer."""
        return Client(self.folder / "api.sock")

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=30)

    def close(self) -> None:
        """End the jobs, which outlive a daemon, then the daemon."""
        for job in self._alive():
            self._run("cancel", job)
        until = time.monotonic() + 20
        while self._alive() and time.monotonic() < until:
            time.sleep(0.3)
        self.stop()

    def _alive(self) -> list[str]:
        done = self._run("ps", "--json")
        jobs = json.loads(done.stdout)["jobs"] if done.returncode == 0 else []
        return [job["id"] for job in jobs if job["state"] in ("queued", "running", "waiting")]

    def ask(self, *words: str) -> Any:
        done = self._run(*words, "--json")
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or done.stdout.strip())
        return json.loads(done.stdout)

    def until(self, job: str, *states: str, step: int = 0) -> dict[str, Any]:
        while True:
            view = self._client.show(job).dump()
            if view["state"] in states and (view["step"] or 0) >= step:
                return view
            if view["state"] in OVER and view["state"] not in states:
                raise RuntimeError(f"the job is {view['state']}: {view['reason']}")
            time.sleep(0.3)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "carbonsched", *words],
            env=self._env(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def _env(self) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        more = {
            "PYTHONPATH": path,
            "CARBONSCHED_SOCKET": str(self.folder / "api.sock"),
            "HF_HUB_OFFLINE": "1",
        }
        if self.board is not None:
            more["CUDA_VISIBLE_DEVICES"] = self.board
        return os.environ | more


def write_box(folder: Path, *, layers: int, hidden: int, power: str, steps: int) -> None:
    """Config, job and a random model with its tokenizer. power: the lines of `[power]`."""
    write_model(folder / "model", layers=layers, hidden=hidden)
    (folder / "config.toml").write_text(CONFIG.format(power=power), encoding="utf-8")
    data = ROOT / "examples" / "debian-pairs" / "train.jsonl"
    (folder / "job.toml").write_text(
        JOB.format(data=data, steps=steps, segment=max(steps // 3, 1)), encoding="utf-8"
    )


def write_model(folder: Path, *, layers: int, hidden: int) -> None:
    """A random Llama of bytes with its tokenizer."""
    from transformers import ByT5Tokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = ByT5Tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

"""Shows on a real board what the tests show on stand-ins. At most four minutes; nothing is downloaded.

    python benchmarks/gpu_check.py [--json]

meter    the board that NVML meters is the one that torch trains on, by UUID
energy   the energy counter against the integrated power, under load
flops    FLOPs as counted on the board against the profile: 16 heads over 4, bf16 and fp32, with and without a mask, eager and sdpa
job      one job of 40 steps at ρ 1, 0.7 and 0.4: ρ planned and realised, seconds when the board was done, joules
daemon   a daemon with this board: a job is paused by SIGTERM and resumed, the daemon stopped and started, the ledger audited

Exit code: 0 all is as it should be, 1 something is not, 2 there is no board to check.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LIMIT_S = 235.0
DAEMON_S = 110.0
"""Kept for the last check: two starts of Python with torch, and a job."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of the model and its batches."""

    layers: int = 12
    hidden: int = 1024
    batch: int = 16
    seq: int = 512
    steps: int = 40
    load_s: float = 8.0
    """Of the load under which counter and power are compared."""

    def config(self, layers: int | None = None) -> Any:
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=4096,
            hidden_size=self.hidden,
            intermediate_size=3 * self.hidden,
            num_hidden_layers=layers or self.layers,
            num_attention_heads=16,
            num_key_value_heads=4,
            pad_token_id=0,
        )


@dataclass(slots=True)
class Report:
    """What was found: lines for people, or one JSON document."""

    size: Size = Size()
    found: list[dict[str, Any]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        return LIMIT_S - (time.monotonic() - self.began)

    def add(self, check: str, ok: bool, text: str, **figures: Any) -> None:
        self.found.append({"check": check, "ok": ok, "found": text, **figures})
        print(f"{check:<7} {'ok ' if ok else 'BAD'} {text}", file=sys.stderr, flush=True)

    def run(self, check: str, work: Callable[["Report"], None], need_s: float) -> None:
        """Run one check within what is left, less `need_s` for those behind it; whatever it raises is its result."""
        try:
            with limited(self.left_s - need_s):
                work(self)
        except Exception as e:
            self.add(check, False, f"{type(e).__name__}: {' '.join(str(e).split())[:300]}")


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeoutError where the block takes longer."""

    def ring(_: int, __: FrameType | None) -> None:
        raise TimeoutError("no time left of the four minutes")

    if seconds <= 0:
        raise TimeoutError("no time left of the four minutes")
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def problem() -> str | None:
    """Why there is no board to check, in one line; None where there is one."""
    import torch

    from trainer.device import cuda_problem

    if torch.cuda.is_available():
        return None
    why, hint = cuda_problem() or ("torch.cuda.is_available() is false", "see nvidia-smi")
    return f"no board to check: {why}; {hint}"


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


# ---- the checks


def check_meter(report: Report) -> None:
    from carbonsched.clock import SystemClock
    from carbonsched.power.nvml_meter import NvmlMeter
    from trainer.device import board_uuid

    meter = NvmlMeter(SystemClock())
    metered = {d.id: d for d in meter.devices} | {i.id: d for d in meter.devices for i in d.instances}
    meter.close()
    torch_says = board_uuid(0)
    board = metered.get(str(torch_says)) or metered.get(str(torch_says).replace("GPU-", "MIG-"))
    rated = (
        ""
        if board is None or board.peak_flops is None
        else f", rated bf16 {board.peak_flops.bf16:.3g} FLOP/s"
    )
    name = "none of NVML's" if board is None else board.name
    report.add("meter", board is not None, f"torch trains on {torch_says}: {name}{rated}", uuid=torch_says)


def check_energy(report: Report) -> None:
    """Power is sampled twenty times a second; its sensor may see a quarter of the time alone, hence the wide band."""
    import pynvml

    from carbonsched.clock import SystemClock
    from carbonsched.power.nvml_boards import ask
    from carbonsched.power.nvml_meter import NvmlMeter
    from trainer.device import board_uuid

    meter, mine = NvmlMeter(SystemClock()), board_uuid(0)
    handle = ask(lambda: pynvml.nvmlDeviceGetHandleByUUID(mine))
    stop = threading.Event()
    worker = threading.Thread(target=_load, args=(stop, 4 * report.size.hidden))
    worker.start()
    try:
        time.sleep(1.0)
        meter.read()
        deltas, joules = [], 0.0
        until = time.monotonic() + report.size.load_s
        while time.monotonic() < until:
            time.sleep(0.05)
            read = [d for d in meter.read() if d.device == mine]
            deltas += read
            milliwatts = ask(lambda: pynvml.nvmlDeviceGetPowerUsage(handle)) or 0
            joules += sum(milliwatts / 1e3 * (d.end - d.start).total_seconds() for d in read)
    finally:
        stop.set()
        worker.join()
        meter.close()
    methods = {str(d.method) for d in deltas}
    counted = sum(d.energy_mj or 0 for d in deltas) / 1e3
    ratio = counted / joules if joules else 0.0
    report.add(
        "energy",
        methods == {"counter"} and 0.85 <= ratio <= 1.15,
        f"{counted:.0f} J by {', '.join(sorted(methods))}, {joules:.0f} J by integrated power: ratio {ratio:.3f}",
        counter_j=counted,
        integrated_j=joules,
    )


def _load(stop: threading.Event, width: int) -> None:
    import torch

    a = torch.randn(width, width, device=device())
    while not stop.is_set():
        for _ in range(20):
            a = torch.nn.functional.normalize(a @ a)
        if a.is_cuda:
            torch.cuda.synchronize()


def check_flops(report: Report) -> None:
    for attn in ("eager", "sdpa"):
        for dtype in ("bf16", "fp32"):
            for masked in (True, False):
                counted, known = count_step(report.size, attn, dtype, masked=masked)
                off = counted / known - 1
                mask = "a mask" if masked else "no mask"
                report.add(
                    "flops",
                    abs(off) <= 0.01,
                    f"{attn}, {dtype}, {mask}: {counted:.4g} counted, {known:.4g} by the profile ({off:+.2%})",
                    counted=counted,
                    profiled=known,
                )


def count_step(size: Size, attn: str, dtype: str, *, masked: bool) -> tuple[float, float]:
    """(FLOPs of a real forward and backward pass, FLOPs by the profile)."""
    import torch
    from transformers import LlamaForCausalLM

    from trainer.profiling.flop_counter import StepCounter
    from trainer.profiling.meta_model import meta_from_config
    from trainer.profiling.profiler import profile

    config = size.config(layers=2)
    known = profile(meta_from_config(config, attn, dtype), 4, size.seq).full_flops
    config._attn_implementation = attn
    model = LlamaForCausalLM(config).to(device(), torch.bfloat16 if dtype == "bf16" else torch.float32)
    ids = torch.ones(4, size.seq, dtype=torch.long, device=device())
    mask = torch.ones_like(ids)
    mask[0, -7:] = 0 if masked else 1  # transformers drops the mask of a batch without padding
    with StepCounter() as counter:
        model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
    return counter.flops, known


def check_job(report: Report) -> None:
    train_at(1.0, report.size, steps=min(3, report.size.steps))  # kernels are loaded, memory is allocated
    rows = [train_at(rho, report.size) for rho in (1.0, 0.7, 0.4)]
    for row in rows:
        joules = "unknown" if row["joules"] is None else f"{row['joules']:.0f} J"
        report.add(
            "job",
            abs(row["planned"] - row["realised"]) <= 0.02 and abs(row["realised"] - row["rho"]) <= 0.05,
            f"ρ {row['rho']:g}: planned {row['planned']:.3f}, realised {row['realised']:.3f}, "
            f"{row['seconds']:.2f} s of {report.size.steps} steps, {joules} by {row['method']}",
            **row,
        )
    falls = [row["seconds"] for row in rows]
    ratios = ", ".join(f"{s / falls[0]:.2f}" for s in falls)
    report.add("job", falls == sorted(falls, reverse=True), f"seconds of steps over those at ρ = 1: {ratios}")


def train_at(rho: float, size: Size, steps: int | None = None) -> dict[str, Any]:
    """Train in a user's own Trainer at a constant ρ; what its one segment took. Seconds are those of the steps alone."""
    import torch
    from transformers import LlamaForCausalLM, Trainer, TrainingArguments

    from carbonsched.model.protocol import Started
    from trainer import GreenTrainerCallback
    from trainer.bench.meter import BenchMeter
    from trainer.device import board_uuid
    from trainer.job.job_dir import now

    torch.manual_seed(0)
    cuda, steps = device() == "cuda", steps or size.steps
    ids = torch.randint(1, 4096, (steps * size.batch, size.seq))
    green = GreenTrainerCallback(rho=rho, segment=steps)
    with tempfile.TemporaryDirectory() as out:
        args = TrainingArguments(
            output_dir=out,
            per_device_train_batch_size=size.batch,
            max_steps=steps,
            bf16=cuda and torch.cuda.is_bf16_supported(),
            use_cpu=not cuda,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_pin_memory=cuda,
        )
        rows = [{"input_ids": row, "labels": row} for row in ids]
        model = LlamaForCausalLM(size.config())
        with BenchMeter(None) as meter:
            Trainer(model, args, train_dataset=rows, callbacks=[green]).train()
            (done,) = green.history
            name = torch.cuda.get_device_name() if cuda else "cpu"
            uuid = board_uuid(0) if cuda else None
            started = Started(
                at=now(), pid=os.getpid(), segments=1, steps=steps, params=0, device=name, gpu_uuid=uuid
            )
            end = done.at.timestamp()
            joules, method = meter.joules([(end - done.seconds, end)], started)
    return {
        "rho": rho,
        "planned": done.rho_planned,
        "realised": done.rho_realised,
        "seconds": done.seconds - done.importance_seconds - done.selection_seconds,
        "joules": joules,
        "method": method,
    }


def check_daemon(report: Report, power: str = 'gpu = "nvml"') -> None:
    """The job is longer than any check: it is ended when all was seen."""
    from benchmarks.daemon_box import Box, write_box
    from trainer.device import board_uuid

    size = report.size
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as name:
        box = Box(Path(name), board_uuid(0) if device() == "cuda" else None)
        write_box(box.folder, layers=min(size.layers, 4), hidden=size.hidden, power=power, steps=30_000)
        try:
            box.start()
            job: str = box.ask("submit", "job.toml")["id"]
            box.until(job, "running", step=1)
            box.ask("pause", job)  # SIGTERM to the trainer: it checkpoints and ends
            paused = box.until(job, "paused")
            box.ask("resume", job)
            box.stop()
            box.start()  # it adopts the job
            on = box.until(job, "running", step=paused["step"] + 5)
            box.ask("cancel", job)
            over = box.until(job, "cancelled")
            audit = box.ask("audit", "verify")
        finally:
            box.close()
        with (box.folder / "state" / "jobs" / job / "events.jsonl").open(encoding="utf-8") as lines:
            events = [json.loads(line) for line in lines]
    starts = [e for e in events if e["event"] == "started"]
    boards = sorted({e["gpu_uuid"] or e["device"] for e in starts})
    # the step that is shown may lag behind the checkpoint's: steps are told once a second
    kept = [e["step"] for e in events[: events.index(starts[-1])] if e["event"] == "checkpoint"]
    resumed = len(starts) == 2 and starts[1]["first_step"] == kept[-1] >= paused["step"]
    report.add(
        "daemon",
        bool(audit["ok"]) and resumed and over["energy_j"] > paused["energy_j"] > 0,
        f"paused at step {paused['step']}, went on from {starts[-1]['first_step']} and under a new daemon to {on['step']} on "
        f"{', '.join(boards)}: {over['energy_j']:.0f} J, audit {'ok' if audit['ok'] else 'BROKEN'} over {audit['rows']} rows",
        energy_j=over["energy_j"],
        boards=boards,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args(argv)
    os.environ.setdefault(
        "CUDA_VISIBLE_DEVICES", "0"
    )  # transformers would spread a model over all that it sees
    if (why := problem()) is not None:
        print(f"gpu_check: {why}", file=sys.stderr)
        return 2
    report = Report()
    report.run("meter", check_meter, DAEMON_S)
    report.run("energy", check_energy, DAEMON_S)
    report.run("flops", check_flops, DAEMON_S)
    report.run("job", check_job, DAEMON_S)
    report.run("daemon", check_daemon, 0.0)
    ok = all(row["ok"] for row in report.found)
    if options.json:
        print(json.dumps({"ok": ok, "seconds": round(LIMIT_S - report.left_s, 1), "checks": report.found}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

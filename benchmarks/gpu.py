"""Measures a real board: seconds, joules and peak memory of a step against its FLOPs. At most eight minutes; random weights, no network.

    python benchmarks/gpu.py [--json] [--clocks] [--shape llama-3.2-1b] [--shape opt-2.7b]

full     all tensors, the head on labelled tokens alone: what ρ = 1 is here
stock    logits for every token, and a third more tokens, as random batches are padded
tensors  tensors chosen by lot at ρ of 0.4, 0.5, 0.6 and 0.8
tokens   gradient through a share of the tokens, the prompt's others into the key-value cache
both     half of the tensors over those tokens
clocks   joules per full step against locked graphics clocks; with --clocks alone, and where this user may lock them

Rows of 512 tokens, the last ninth labelled, weights and optimizer in bf16. ρ is counted on a real step; the aim is that forward and backward take at
most ρ + .03 of full's seconds, the update apart. Without a board it runs tiny shapes on the CPU, which shows that it works and nothing more.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LIMIT_S = 470.0
LEEWAY = 0.03
"""What seconds may be above ρ."""
PADDING = 4 / 3
"""Tokens that a stock Trainer computes for each real one, as measured on SciTLDR (docs/results.md), about."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of batches, and how long each setting is measured."""

    batch: int = 16
    seq: int = 512
    labelled: int = 57
    warmup: int = 3
    steps: int = 12
    rhos: tuple[float, ...] = (0.4, 0.5, 0.6, 0.8)
    shares: tuple[float, ...] = (0.125, 0.25, 0.5)


TINY = Size(batch=2, seq=24, labelled=4, warmup=1, steps=2, rhos=(0.6,), shares=(0.25,))


@dataclass(slots=True)
class Bench:
    """One model on the device, its optimizer and a batch.

    Example::

        bench = Bench.of(config, Size())
        row = bench.measure("full", bench.names)
    """

    model: Any
    size: Size
    names: list[str]
    full: dict[str, Any] | None = None

    @classmethod
    def of(cls, config: Any, size: Size) -> "Bench":
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        with torch.device(device()):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16, attn_implementation="sdpa", trust_remote_code=False
            )
        model.config.use_cache = False
        model.train()
        return cls(model, size, [name for name, _ in model.named_parameters()])

    def batch(self, seq: int) -> dict[str, Any]:
        import torch

        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, self.model.config.vocab_size, (self.size.batch, seq), generator=generator)
        labels = ids.clone()
        labels[:, : -self.size.labelled] = -100
        return {n: x.to(device()) for n, x in (("input_ids", ids), ("labels", labels))} | {
            "attention_mask": torch.ones_like(ids).to(device())
        }

    def measure(
        self, kind: str, names: list[str], *, share: float = 1.0, head: bool = True, seq: int | None = None
    ) -> dict[str, Any]:
        """Steps of one setting: its parts' seconds, joules, peak memory, and ρ of a counted one."""
        import torch

        from trainer.profiling.flop_counter import StepCounter
        from trainer.profiling.labelled_head import LabelledHead
        from trainer.profiling.prompt_split import PromptSplit
        from trainer.training.step_clock import StepClock

        weights = self._train_only(set(names))
        optimizer = torch.optim.AdamW(weights, lr=1e-6, fused=True)
        batch, cuda = self.batch(seq or self.size.seq), device() == "cuda"
        split = PromptSplit(self.model)
        split.share = share

        def step() -> None:
            self.model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        with ExitStack() as inside:
            if share < 1:
                inside.enter_context(split.attached())
            if head:
                inside.enter_context(LabelledHead(self.model).attached())
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            with StepCounter() as counter:
                step()
            for _ in range(self.size.warmup):
                step()
            with joules_of() as spent:
                seconds = _timed(step, self.size.steps)
            with StepClock() as clock:
                for _ in range(self.size.steps):
                    clock.begin_step()
                    step()
                    clock.end_step()
        steps, parts = self.size.steps, clock.parts
        row = {
            "kind": kind,
            "flops": counter.flops,
            "step_s": seconds / steps,
            "forward_no_grad_s": parts.forward_no_grad_s / steps,
            "forward_s": parts.forward_s / steps,
            "backward_s": parts.backward_s / steps,
            "clipping_s": parts.clipping_s / steps,
            "update_s": parts.update_s / steps,
            "step_j": None if spent.joules is None else spent.joules / steps,
            "joules_method": spent.method,
            "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else None,
            "trained_share": sum(w.numel() for w in weights)
            / sum(p.numel() for p in self.model.parameters()),
        }
        self.full = self.full or row
        return row | self._ratios(row)

    def _train_only(self, names: set[str]) -> list[Any]:
        """Freeze all other tensors; returns the trained ones."""
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in names)
            parameter.grad = None
        return [p for p in self.model.parameters() if p.requires_grad]

    def _ratios(self, row: dict[str, Any]) -> dict[str, Any]:
        """Against full, whose FLOPs are T_full."""
        full = self.full or row
        passes, whole = (
            sum(r[n] for n in ("forward_no_grad_s", "forward_s", "backward_s")) for r in (row, full)
        )
        found = {"rho": row["flops"] / full["flops"], "passes_ratio": passes / whole}
        found["step_ratio"] = row["step_s"] / full["step_s"]
        known = row["step_j"] is not None and full["step_j"]
        return found | {
            "joules_ratio": row["step_j"] / full["step_j"] if known else None,
            "within_aim": found["passes_ratio"] <= found["rho"] + LEEWAY,
        }

    def by_lot(self, rho: float) -> list[str]:
        """Tensors chosen by lot at `rho`, by the profile of this very batch."""
        from trainer.methods.prepare import prepare
        from trainer.profiling.flop_counter import Shape

        for parameter in self.model.parameters():
            parameter.requires_grad_(True)
        size = self.size
        shape = Shape(size.batch, size.seq, None, size.batch * size.labelled)
        method = prepare(self.model, "random", shape, attn="sdpa", importance="reach").method
        curve = method.curve(method.importance(0, None))
        return list(curve.select(max(rho, curve.floor)).selected)


@dataclass(slots=True)
class Spent:
    joules: float | None = None
    method: str = "unknown"


@contextmanager
def joules_of() -> Iterator[Spent]:
    """Of the block, by the board's counter."""
    import os

    import torch

    from carbonsched.model.protocol import Started
    from trainer.bench.meter import BenchMeter
    from trainer.device import board_uuid
    from trainer.job.job_dir import now

    cuda, spent = device() == "cuda", Spent()
    with BenchMeter(None) as meter:
        _seconds()
        began = time.time()
        yield spent
        _seconds()
        name, uuid = (torch.cuda.get_device_name(), board_uuid(0)) if cuda else ("cpu", None)
        started = Started(
            at=now(), pid=os.getpid(), segments=1, steps=1, params=0, device=name, gpu_uuid=uuid
        )
        spent.joules, spent.method = meter.joules([(began, time.time())], started)


def device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _timed(step: Callable[[], None], steps: int) -> float:
    began = _seconds()
    for _ in range(steps):
        step()
    return _seconds() - began


def _seconds() -> float:
    from trainer.device import device_seconds

    return device_seconds()


@dataclass(slots=True)
class Report:
    """Rows measured so far, within the time that there is."""

    limit_s: float = LIMIT_S
    rows: list[dict[str, Any]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _longest: float = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def add(self, what: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Measure one row; left out, and why, where the time is over or it fails."""
        began = time.monotonic()
        if self.seconds + 1.5 * self._longest > self.limit_s:
            self.left_out.append(f"{what}: no time left of {self.limit_s:.0f} s")
            return None
        try:
            row = work()
        except Exception as e:
            self.left_out.append(f"{what}: {type(e).__name__}: {' '.join(str(e).split())[:200]}")
            return None
        self._longest = max(self._longest, time.monotonic() - began)
        self.rows.append({"what": what, **row})
        memory = "" if row["peak_memory_bytes"] is None else f", {row['peak_memory_bytes'] / 1e9:.1f} GB"
        joules = "? J" if row["step_j"] is None else f"{row['step_j']:.2f} J"
        print(
            f"{what:<28} ρ {row['rho']:.3f}, passes {row['passes_ratio']:.3f}, step {row['step_ratio']:.3f} "
            f"({row['step_s'] * 1e3:.0f} ms, update {row['update_s'] * 1e3:.0f} ms), {joules}{memory}",
            file=sys.stderr,
            flush=True,
        )
        return row


def measure_shape(report: Report, name: str, config: Any, size: Size, *, clocks: bool) -> None:
    """Every setting of one model."""
    bench = Bench.of(config, size)
    every = bench.names
    if report.add(f"{name} full", lambda: bench.measure("full", every)) is None:
        return  # nothing to set the others against
    wide = round(size.seq * PADDING)
    report.add(f"{name} stock", lambda: bench.measure("stock", every, head=False, seq=wide))
    for rho in size.rhos:
        report.add(f"{name} tensors {rho:g}", lambda rho=rho: bench.measure("tensors", bench.by_lot(rho)))  # type: ignore[misc]
    for share in size.shares:
        report.add(f"{name} tokens {share:g}", lambda t=share: bench.measure("tokens", every, share=t))  # type: ignore[misc]
    share = size.shares[-1]
    report.add(f"{name} both {share:g}", lambda: bench.measure("both", bench.by_lot(0.7), share=share))
    if clocks:
        measure_clocks(report, name, bench)


def measure_clocks(report: Report, name: str, bench: Bench) -> None:
    """Full steps at locked graphics clocks; the board's own are restored whatever happens."""
    import pynvml

    from trainer.device import board_uuid

    pynvml.nvmlInit()
    try:
        board = pynvml.nvmlDeviceGetHandleByUUID(board_uuid(0))
        memory = pynvml.nvmlDeviceGetMaxClockInfo(board, pynvml.NVML_CLOCK_MEM)
        steps = sorted(pynvml.nvmlDeviceGetSupportedGraphicsClocks(board, memory))
        try:
            for share in (1.0, 0.85, 0.7, 0.55):
                clock = min(steps, key=lambda mhz, share=share: abs(mhz - share * steps[-1]))  # type: ignore[misc]
                pynvml.nvmlDeviceSetGpuLockedClocks(board, clock, clock)
                report.add(f"{name} clock {clock} MHz", lambda: bench.measure("clocks", bench.names))
        finally:
            pynvml.nvmlDeviceResetGpuLockedClocks(board)
    except pynvml.NVMLError as e:
        report.left_out.append(f"{name} clocks: {e}")
    finally:
        pynvml.nvmlShutdown()


def tiny() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=307,
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )


def run(shapes: list[str], report: Report, *, clocks: bool = False) -> dict[str, Any]:
    """The whole document. Without a board: one tiny shape."""
    import torch

    from trainer.bench.shapes import shape

    cuda = device() == "cuda"
    size = Size() if cuda else TINY
    for name, config in [(n, shape(n)) for n in shapes] if cuda else [("tiny", tiny())]:
        measure_shape(report, name, config, size, clocks=clocks and cuda)
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
    return {
        "device": torch.cuda.get_device_name() if cuda else "cpu: tiny shapes, no measurement",
        "torch": torch.__version__,
        "batch": size.batch,
        "seq": size.seq,
        "labelled": size.labelled,
        "seconds": round(report.seconds, 1),
        "rows": report.rows,
        "left_out": report.left_out,
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument(
        "--clocks", action="store_true", help="lock the graphics clocks, too; restored afterwards"
    )
    parser.add_argument("--shape", action="append", help="of trainer/bench/shapes.py; may be repeated")
    options = parser.parse_args(argv)
    document = run(options.shape or ["llama-3.2-1b", "opt-2.7b"], Report(), clocks=options.clocks)
    if options.json:
        print(json.dumps(document))
    for line in document["left_out"]:
        print(f"left out: {line}", file=sys.stderr)
    return 0 if document["rows"] else 1


if __name__ == "__main__":
    sys.exit(main())

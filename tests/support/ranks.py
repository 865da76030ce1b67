"""What each rank of torchrun runs for tests/trainer/distributed/test_wrapping.py, and how torchrun is called.

torchrun tests/support/ranks.py train OUT MODEL SCENARIO…     a stock Trainer with the callback, its outcome to OUT
torchrun tests/support/ranks.py job JOB_DIR                   as `python -m trainer run`, FSDP2 on the CPU included
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from support.models import word_rows
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from carbonsched.model.job import DataPart, ModelPart
from trainer import GreenTrainerCallback
from trainer.data.encoding import TextEncoder, TokenDataset
from trainer.data.field_layouts import Row
from trainer.distributed.ranks import leave

ROWS = 32
STEPS = 8
BATCH = 8
"""Of all ranks together."""
_RANDOM: dict[str, Any] = {"method": "random", "rho": 0.65, "segment": 2}
_MEASURED: dict[str, Any] = {"rho": 0.8, "segment": 4}
_CHECKPOINTING = {"activation_checkpointing": True, "gradient_accumulation_steps": 2}

SCENARIOS: dict[str, dict[str, Any]] = {
    "ddp": _RANDOM,
    "ddp-checkpointing": {**_RANDOM, "labelled_head": True, "args": _CHECKPOINTING},
    "ddp-importance": _MEASURED,
    "ddp-dropbp": {"method": "dropbp", "rho": 0.7, "segment": 4},
    "ddp-tokens": {"method": "tokens", "rho": 0.6, "segment": 4, "labelled_head": True},
    "fsdp2-tokens": {
        "method": "tokens",
        "rho": 0.6,
        "segment": 4,
        "labelled_head": True,
        "args": {"fsdp": True, **_CHECKPOINTING},
    },
    "fsdp2": {**_RANDOM, "args": {"fsdp": True}},
    "fsdp2-checkpointing": {**_RANDOM, "args": {"fsdp": True, **_CHECKPOINTING}},
    # the embedding is frozen, trained, frozen: FSDP2 leaves it gathered after an evaluation
    "fsdp2-evaluating": {
        **_RANDOM,
        "labelled_head": True,
        "rho": 0.9,
        "seed": 1,
        "args": {"fsdp": True, "eval_strategy": "steps", "eval_steps": 1},
    },
    "fsdp2-importance": {"rho": 0.9, "segment": 4, "importance_batches": 2, "args": {"fsdp": True}},
}


def torchrun(*arguments: object, ranks: int = 2) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    env = {
        **os.environ,
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command = [*launch, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=500, check=False)


class Looks(TrainerCallback):  # type: ignore[misc]
    """Notes the importances that each segment was selected by."""

    def __init__(self, steered: GreenTrainerCallback) -> None:
        self.steered = steered
        self.importance: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        found = self.steered.segment.importance
        if not self.importance or self.importance[-1] != found:
            self.importance.append(dict(found))


def train(folder: Path, out: Path, world: int, **options: Any) -> dict[str, Any]:
    """Eight steps in float64, so that a difference between two runs is one of method and not of rounding.

    Returns all that two runs are compared by: whole weights by name, each segment's account and importances.
    """
    args = {"gradient_accumulation_steps": 1, **options.pop("args", {})}
    part = DataPart(name_or_path="x", max_length=32)
    encoder = TextEncoder.of(ModelPart(name_or_path=str(folder)), part)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float64)
    callback = GreenTrainerCallback(**options)
    looks = Looks(callback)
    rows = TokenDataset(encoder.encode([Row(**row) for row in word_rows(ROWS)]))
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=BATCH // world // args["gradient_accumulation_steps"],
        per_device_eval_batch_size=4,
        learning_rate=1e-2,
        max_grad_norm=0.2,
        **{"max_steps": STEPS, **args},
        save_strategy="no",
        logging_steps=1,
        seed=3,
        disable_tqdm=True,
        report_to="none",
        use_cpu=True,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=encoder.collate,
        callbacks=[callback, looks],
    )
    trainer.train()
    return {
        "sharded": any(hasattr(p, "full_tensor") for p in trainer.model.parameters()),
        "weights": {
            name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
            for name, p in trainer.model.named_parameters()
        },
        "history": [done.dump() for done in callback.history],
        "importance": looks.importance,
    }


def fsdp_on_the_cpu() -> None:
    """accelerate passes FSDP over, silently, where it sees no GPU; torch's fully_shard runs on gloo as well."""
    from accelerate import PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    original = AcceleratorState.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        shared = PartialState._shared_state
        if kwargs.get("fsdp_plugin") and shared.get("distributed_type") == DistributedType.MULTI_CPU:
            shared["distributed_type"] = DistributedType.MULTI_GPU
        original(self, *args, **kwargs)

    AcceleratorState.__init__ = init


def main(what: str, folder: Path, rest: list[str]) -> int:
    torch.set_num_threads(1)
    fsdp_on_the_cpu()
    if what == "job":
        from trainer.commands.run import run

        return run(folder)
    for scenario in rest[1:]:
        found = train(Path(rest[0]), folder / scenario, 2, **SCENARIOS[scenario])
        torch.save(found, folder / f"{scenario}-{os.environ['RANK']}.pt")
    leave()
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as `trainer run` does: threads that gloo may still hold would abort the process

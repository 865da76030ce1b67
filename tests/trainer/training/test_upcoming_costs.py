"""Batches of other shapes than the profile's: the plan is for those that come, and what is realised is of them all."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_t5
from transformers import AutoModelForSeq2SeqLM, Trainer, TrainingArguments

from trainer import GreenTrainerCallback

torch.set_num_threads(1)


def collate(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    longest = max(len(row["labels"]) for row in rows)
    labels = [row["labels"] + [-100] * (longest - len(row["labels"])) for row in rows]
    return {
        "input_ids": torch.tensor([row["input_ids"] for row in rows]),
        "labels": torch.tensor(labels),
    }


@pytest.mark.parametrize("rho", [0.6, 0.8])
def test_what_is_written_weighs_on_the_decoder_alone(tmp_path: Path, rho: float) -> None:
    """As in speech: every source is as long, and the targets are of any length."""
    rng = random.Random(0)
    rows = [{"input_ids": [5] * 40, "labels": [6] * rng.randint(2, 40)} for _ in range(32)]
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path / "t5"), attn_implementation="eager")
    callback = GreenTrainerCallback(rho, segment=6)
    arguments = TrainingArguments(
        str(tmp_path / "out"),
        per_device_train_batch_size=2,
        max_steps=12,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Trainer(model, arguments, train_dataset=rows, data_collator=collate, callbacks=[callback]).train()
    assert len(callback.history) == 2
    for done in callback.history:
        assert done.rho_planned <= rho + 1e-6
        assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.002)

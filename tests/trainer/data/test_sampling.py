"""The training order, foreseen: against what a real Trainer reads."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import tiny_llama
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from trainer.data.sampling import coming_batches
from trainer.job.random_state import own_random
from trainer.job.segment import Schedule

torch.set_num_threads(1)


class Numbered(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> int:
        return index


class Foresee(TrainerCallback):  # type: ignore[misc]
    found: list[list[int]] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loader = kwargs["train_dataloader"]
        per_epoch = max(-(-len(loader) // 2), 1)
        self.found = coming_batches(
            loader, Schedule(state.max_steps, per_epoch, per_epoch), 1, state.max_steps, 2
        )


@pytest.mark.parametrize(
    "options", [{}, {"dataloader_drop_last": True}, {"train_sampling_strategy": "sequential"}]
)
def test_the_coming_batches_are_those_that_come(tmp_path: Path, options: dict[str, Any]) -> None:
    read: list[list[int]] = []

    def collate(rows: list[int]) -> dict[str, torch.Tensor]:
        read.append(rows)
        ids = torch.full((len(rows), 4), 5)
        return {"input_ids": ids, "labels": ids}

    foresee = Foresee()
    args = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=3,
        seed=5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        **options,
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path / "llama", layers=1))
    Trainer(model, args, train_dataset=Numbered(), data_collator=collate, callbacks=[foresee]).train()
    assert foresee.found == read[2:], "from the second step on"


def test_an_unknown_order_is_not_guessed() -> None:
    loader = torch.utils.data.DataLoader(Numbered(), batch_size=2, shuffle=True)
    assert coming_batches(loader, Schedule(6, 6, 6), 0, 6, 1) is None


def test_own_random_leaves_every_generator_where_it_was() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    with own_random(3):
        first = torch.rand(2)
        np.random.rand(2)
        random.random()
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()
    assert before[2] == random.getstate()
    with own_random(3):
        assert torch.equal(first, torch.rand(2))

"""The training order, foreseen: against what a real Trainer reads."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.models import tiny_llama
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from trainer.data.sampling import GroupedSampler, coming_batches
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
    "options",
    [{}, {"dataloader_drop_last": True}, {"train_sampling_strategy": "sequential"}, {"grouped": True}],
)
def test_the_coming_batches_are_those_that_come(tmp_path: Path, options: dict[str, Any]) -> None:
    read: list[list[int]] = []

    def collate(rows: list[int]) -> dict[str, torch.Tensor]:
        read.append(rows)
        ids = torch.full((len(rows), 4), 5)
        return {"input_ids": ids, "labels": ids}

    class Grouping(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any) -> Any:
            return GroupedSampler([i % 4 for i in range(11)], 2, seed=5)

    foresee, kind = Foresee(), Grouping if options.get("grouped") else Trainer
    options = {name: value for name, value in options.items() if name != "grouped"}
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
    kind(model, args, train_dataset=Numbered(), data_collator=collate, callbacks=[foresee]).train()
    assert foresee.found == read[2:], "from the second step on"


def padded(order: list[int], lengths: list[int], batch: int) -> int:
    return sum(max(lengths[i] for i in rows) * len(rows) for rows in batches_of(order, batch))


def batches_of(order: list[int], batch: int) -> list[list[int]]:
    return [order[i : i + batch] for i in range(0, len(order), batch)]


def test_grouped_rows_are_each_read_once_with_little_padding_in_an_order_of_their_own() -> None:
    rng = random.Random(0)
    lengths = [int(rng.lognormvariate(5, 0.5)) for _ in range(603)]
    sampler = GroupedSampler(lengths, 4, seed=1)
    orders = [sampler.order(epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(603))
        assert padded(order, lengths, 4) < 1.06 * sum(lengths)
        # long and short batches come mixed, not in the order of their lengths
        means = [sum(lengths[i] for i in rows) / 4 for rows in batches_of(order, 4)[:150]]
        assert abs(np.corrcoef(range(150), means)[0, 1]) < 0.25
    shuffled = torch.randperm(603, generator=torch.Generator().manual_seed(0)).tolist()
    assert padded(shuffled, lengths, 4) > 1.3 * sum(lengths)
    # a row meets others in each epoch, and the seed decides it all
    together = [{frozenset(rows) for rows in batches_of(order, 4)} for order in orders]
    assert len(together[0] & together[1]) < 10
    assert list(GroupedSampler(lengths, 4, seed=1, epoch=2)) == orders[2]
    assert GroupedSampler(lengths, 4, seed=2).order(0) != orders[0]
    # what fills no batch is any row's lot
    assert len({order[-1] for order in orders}) > 1


def test_fewer_rows_than_a_batch_are_one() -> None:
    assert sorted(GroupedSampler([3, 1, 2], 4, seed=0)) == [0, 1, 2]


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


def test_drawn_batches_are_of_like_length_too_and_leave_the_order_alone() -> None:
    lengths = [int(x) for x in np.random.default_rng(0).integers(5, 200, 603)]
    sampler = GroupedSampler(lengths, 4, seed=1)
    order = sampler.order(0)
    drawn = [rows for seed in range(40) for rows in sampler.drawn(4, 3, seed)]
    assert sum(max(lengths[i] for i in rows) - min(lengths[i] for i in rows) for rows in drawn) < 3 * len(
        drawn
    )
    assert len({frozenset(rows) for rows in drawn}) > 90
    means = [sum(lengths[i] for i in rows) / 4 for rows in drawn]
    assert sum(means) / len(means) == pytest.approx(sum(lengths) / 603, rel=0.1), "of any length"
    assert sampler.order(0) == order
    two = [sampler.drawn(2, 2, 7, rank) for rank in (0, 1)]
    assert [a + b for a, b in zip(*two, strict=True)] == sampler.drawn(4, 2, 7)
    assert GroupedSampler([3, 4, 5], 2, seed=0).drawn(2, 2, 0, 0) != []
    assert len(GroupedSampler([3, 4, 5], 2, seed=0).drawn(2, 2, 0)) == 1, "there is no second one"
    assert GroupedSampler([3], 2, seed=0).drawn(2, 1, 0) == []

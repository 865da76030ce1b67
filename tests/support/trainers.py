"""A plain transformers.Trainer over word rows, as a user would write it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.models import word_rows


def plain_trainer(
    model: Any, folder: Path, out: Path, callbacks: Sequence[Any], *, rows: int = 16, **args: Any
) -> Any:
    """Of a causal `model`, with the tokenizer in `folder`: 4 rows a batch, 2 epochs, AdamW at 1e-2, every loss logged."""
    from carbonsched.model.job import DataPart, ModelPart
    from trainer.data.encoding import TextEncoder
    from trainer.data.field_layouts import Row

    part = DataPart(name_or_path="x", max_length=32, target_length=8)
    encoder = TextEncoder.of(ModelPart(name_or_path=str(folder)), part)
    texts = [Row(**row) for row in word_rows(rows, length=6)] + [
        Row(**row) for row in word_rows(rows, seed=7)
    ]
    return trainer_over(model, encoder, encoder.encode(texts[::2]), out, callbacks, **args)


def trainer_over(
    model: Any,
    encoder: Any,
    encoded: Any,
    out: Path,
    callbacks: Sequence[Any],
    *,
    kind: type | None = None,
    more: dict[str, Any] | None = None,
    **args: Any,
) -> Any:
    """Of any model and encoded rows: 4 rows per batch, 2 epochs, AdamW at 1e-2, every loss logged; `args` come first.

    kind: of Trainer; more: its arguments.
    """
    from transformers import Trainer, TrainingArguments

    from trainer.data.encoding import TokenDataset

    arguments = TrainingArguments(
        output_dir=str(out),
        learning_rate=1e-2,
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **{
            "per_device_train_batch_size": 4,
            "report_to": "none",
            "num_train_epochs": 2,
            "save_strategy": "no",
            "logging_steps": 1,
            "seed": 3,
            **args,
        },
    )
    given = {"train_dataset": TokenDataset(encoded), "data_collator": encoder.collate, **(more or {})}
    return (kind or Trainer)(model, arguments, callbacks=list(callbacks), **given)


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

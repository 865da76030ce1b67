"""Generates text by greedy or beam search, from the same prompts that the model was trained on.

Nothing is drawn, so the same weights write the same text. Decoders are padded on the left, since what is written stands at the
right end; a row's text does not depend on the rows beside it. A text ends at an end token, or after `max_new_tokens`; for
questions at the end of its first line, since answers are one line.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from carbonsched.model.job import DataPart, EvaluatePart
from trainer.data.encoding import TextEncoder
from trainer.data.field_layouts import Row
from trainer.job.directives import Stopped


@dataclass(frozen=True, slots=True)
class Generation:
    """How text is generated; it stands beside every figure made from it.

    Example:
        >>> Generation(max_new_tokens=64).dump()["num_beams"]
        1
    """

    max_new_tokens: int
    num_beams: int = 1
    batch_size: int = 8
    do_sample: bool = False

    @classmethod
    def of(cls, evaluate: EvaluatePart, data: DataPart, batch_size: int) -> "Generation":
        return cls(
            evaluate.max_new_tokens or data.target_length,
            evaluate.num_beams,
            evaluate.batch_size or batch_size,
        )

    def dump(self) -> dict[str, Any]:
        return asdict(self)


def generate(
    model: Any,
    encoder: TextEncoder,
    rows: Sequence[Row],
    options: Generation,
    stop: Callable[[], bool] = lambda: False,
) -> list[str]:
    """The text the model writes for each row's source; leaves mode and RNG as they were.

    Raises Stopped between two tokens once `stop()` holds.
    """
    tokenizer, two_sided = encoder.tokenizer, encoder.encoder_decoder
    ids = encoder.prompts(rows, options.max_new_tokens)
    order = sorted(range(len(rows)), key=lambda i: -len(ids[i]))
    texts = [""] * len(rows)
    device = next(model.parameters()).device
    settings = _config(model, tokenizer, options)
    training = model.training
    model.eval()
    try:
        for at in range(0, len(order), options.batch_size):
            chosen = order[at : at + options.batch_size]
            batch, mask = _padded([ids[i] for i in chosen], tokenizer.pad_token_id, left=not two_sided)
            with torch.no_grad(), _alone(model, settings):
                written = model.generate(
                    input_ids=batch.to(device),
                    attention_mask=mask.to(device),
                    stopping_criteria=[_Interrupted(stop)],
                )
            if not two_sided:
                written = written[:, batch.shape[1] :]
            for i, text in zip(
                chosen, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True
            ):
                texts[i] = _clean(text, rows[i].task or encoder.data.task)
    finally:
        model.train(training)
    return texts


def _clean(text: str, task: str | None) -> str:
    text = text.strip()
    return text.partition("\n")[0].strip() if task == "qa" else text


@contextmanager
def _alone(model: Any, settings: Any) -> Iterator[None]:
    """`settings` and nothing of the model's own generation_config.json: transformers fills up from it what a given config
    leaves out, and its penalties, lengths and forced tokens differ between models."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    own, inner.generation_config = inner.generation_config, settings
    try:
        yield
    finally:
        inner.generation_config = own


def _config(model: Any, tokenizer: Any, options: Generation) -> Any:
    from transformers import GenerationConfig

    own = model.generation_config
    ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
    ends = sorted({token for token in (*ends, tokenizer.eos_token_id) if token is not None})
    return GenerationConfig(
        max_new_tokens=options.max_new_tokens,
        num_beams=options.num_beams,
        do_sample=options.do_sample,
        use_cache=True,
        eos_token_id=ends or None,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=own.bos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )


class _Interrupted:
    """A stopping criterion that asks at every token: a batch on a CPU may take minutes."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.stop = stop

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        if self.stop():
            raise Stopped("signal")
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


def _padded(rows: list[list[int]], pad: int, *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), both [rows, longest]."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, row in enumerate(rows):
        at = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[i, at] = torch.tensor(row, dtype=torch.long)
        mask[i, at] = 1
    return ids, mask

"""TextEncoder turns rows into token ids, prompts, batches and batch shapes.

It is set up once per job from the tokenizer, the `[data]` settings and the kind of model, so that training, evaluation, text
generation and the check all see the same tokens. Decoders see `prompt + target` and learn from the target's tokens alone
(labels −100 elsewhere); encoder-decoders read the prompt and write the target. Where a row is too long the source gives
way, never the target.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart, ModelPart, TrainPart
from trainer.data.chat_template import ChatTemplate
from trainer.data.field_layouts import Row, Task
from trainer.data.models import is_encoder_decoder, load_tokenizer
from trainer.data.sampling import GroupedSampler
from trainer.profiling.labelled_head import IGNORED

PAD_MULTIPLE = 8
"""On a board the longest row of a batch is padded to a multiple of so many tokens, which makes matrix products faster."""
_SHAPE_DRAWS = 256
_BATCH_DRAWS = 16
"""Batches drawn to find the mean shape."""

_PROMPTS = {
    "summarization": ("", "\n\nSummary:"),
    "qa": ("Question: ", "\nAnswer:"),
    "causal": ("", ""),
    "instruction": ("### Instruction:\n", "\n\n### Response:"),
}
_PREFIXES = {"summarization": "summarize: ", "qa": "question: ", "causal": "", "instruction": ""}


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one row; for decoders `input_ids` holds prompt and target and `labels` is as long.

    Example:
        >>> Encoded([5, 6, 7], [IGNORED, 6, 7]).dump()
        {'input_ids': [5, 6, 7], 'labels': [-100, 6, 7]}
    """

    input_ids: list[int]
    labels: list[int]

    def dump(self) -> dict[str, list[int]]:
        """The form that `TextEncoder.collate` and a Trainer take."""
        return {"input_ids": self.input_ids, "labels": self.labels}


class TokenDataset(torch.utils.data.Dataset[dict[str, list[int]]]):
    """Encoded rows as torch's loaders take them.

    Example:
        >>> len(TokenDataset([Encoded([5], [5])]))
        1
    """

    def __init__(self, rows: Sequence[Encoded]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.rows[index].dump()


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """Rows to tokens for one model and one job.

    Example::

        encoder = TextEncoder.of(spec.model, spec.data)
        encoded = encoder.encode(rows.train)
        batch = encoder.collate([row.dump() for row in encoded[:4]])
    """

    tokenizer: Any
    data: DataPart
    encoder_decoder: bool

    @classmethod
    def of(cls, model: ModelPart, data: DataPart) -> "TextEncoder":
        """With the model's own tokenizer and config.json. Raises InputError."""
        return cls(load_tokenizer(model), data, is_encoder_decoder(model))

    def encode(self, rows: Sequence[Row]) -> list[Encoded]:
        """Token ids of every row, at most `max_length` long; the target is kept whole up to `target_length`.

        With `data.pack`: blocks of `max_length` tokens that contain every token of the rows. Raises InputError for pack with prompts or an
        encoder-decoder, and if there is no room for the prompt's own words and one token of the target.
        """
        if not rows:
            return []
        if self.data.pack:
            return self._pack(rows)
        if any(row.messages for row in rows):
            return self._mixed(rows)
        most_tokens = self.data.max_length
        lead = ["" if self.encoder_decoder or not row.source else " " for row in rows]
        targets = self._ids([before + row.target for before, row in zip(lead, rows, strict=True)])
        end, encoded = self._end, []
        for prompt, full_target in zip(self._split_prompts(rows), targets, strict=True):
            if self.encoder_decoder:
                target = full_target[: self.data.target_length - len(end)] + end
                encoded.append(Encoded(prompt.cut(most_tokens - len(end)) + end, target))
                continue
            most = most_tokens - prompt.least
            # plain text has no prompt that could be cut
            target = full_target[: (min(self.data.target_length, most) if prompt.source else most) - len(end)]
            ids = prompt.cut(most_tokens - len(target) - len(end))
            encoded.append(Encoded(ids + target + end, [IGNORED] * len(ids) + target + end))
        return encoded

    def prompts(self, rows: Sequence[Row], new_tokens: int) -> list[list[int]]:
        """Token ids to generate from: what `encode` puts before the target.

        If a source is too long for `max_length`, it is cut to leave `new_tokens`, but no more than the longest target or half of the room.
        """
        if not rows:
            return []
        if any(row.messages for row in rows):
            return self._mixed_prompts(rows, new_tokens)
        end = self._end if self.encoder_decoder else []
        found = []
        for prompt in self._split_prompts(rows):
            most = self.data.max_length - prompt.least
            kept = 0 if self.encoder_decoder else min(new_tokens, self.data.target_length, most // 2)
            found.append(prompt.cut(self.data.max_length - len(end) - kept) + end)
        return found

    def collate(self, rows: Sequence[Any], *, longest: bool = False) -> dict[str, torch.Tensor]:
        """A batch of rows (`Encoded.dump()`), padded on the right: ids, mask and labels, each [rows, tokens].

        Padded to `max_length`, or to the longest row, rounded up to a multiple of 8 on a board. longest: always to the longest row.
        """
        lengths = [len(row["input_ids"]) for row in rows]
        targets = [len(row["labels"]) for row in rows]
        seq, target_seq = self.batch_shape(lengths, targets, longest=longest)
        ids = torch.full((len(rows), seq), self.tokenizer.pad_token_id)
        mask = torch.zeros((len(rows), seq), dtype=torch.long)
        labels = torch.full((len(rows), target_seq or seq), IGNORED)
        for i, row in enumerate(rows):
            ids[i, : lengths[i]] = torch.tensor(row["input_ids"])
            mask[i, : lengths[i]] = 1
            labels[i, : len(row["labels"])] = torch.tensor(row["labels"])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    def batch_shape(
        self, lengths: Sequence[int], target_lengths: Sequence[int], *, longest: bool = False
    ) -> tuple[int, int | None]:
        """(seq, target_seq) of a batch of rows with these lengths; target_seq is None for decoders."""

        def padded(values: Sequence[int], most: int) -> int:
            if self.data.pad == "max_length" and not longest:
                return most
            multiple = PAD_MULTIPLE if _on_board() else 1
            return min(-(-max(values) // multiple) * multiple, max(most, max(values)))

        seq = padded(lengths, self.data.max_length)
        return seq, padded(target_lengths, self.data.target_length) if self.encoder_decoder else None

    def sampler(
        self, encoded: Sequence[Encoded], train: TrainPart, ranks: int, epoch: int = 0
    ) -> GroupedSampler | None:
        """The sampler that groups rows by length for so many ranks; None: rows are not grouped. epoch: the first one."""
        if not train.group_by_length or self.data.pad == "max_length" or self.data.pack:
            return None
        lengths = [(len(row.input_ids), len(row.labels)) for row in encoded]
        return GroupedSampler(lengths, train.batch_size * ranks, train.seed, epoch)

    def nominal_shape(
        self, encoded: Sequence[Encoded], batch: int, sampler: GroupedSampler | None = None
    ) -> tuple[int, int | None, int]:
        """(seq, target_seq, labelled tokens per row) of the job's mean batch, for which it is profiled; drawn with a fixed seed. sampler:
        groups the rows; None: they are not grouped."""
        draws = 1 if self.data.pad == "max_length" else _SHAPE_DRAWS
        shapes = []
        for rows in self._draw(encoded, batch, draws, sampler):
            shapes.append(self.batch_shape([len(r.input_ids) for r in rows], [len(r.labels) for r in rows]))
        seq = round(sum(s for s, _ in shapes) / len(shapes))
        labelled = max(round(sum(map(self._labelled, encoded)) / len(encoded)), 1)
        if not self.encoder_decoder:
            return seq, None, labelled
        return seq, round(sum(t or 0 for _, t in shapes) / len(shapes)), labelled

    def typical_batches(
        self, encoded: Sequence[Encoded], batch: int, sampler: GroupedSampler | None = None
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Some of the batches that `nominal_shape` is the mean of."""
        for rows in self._draw(encoded, batch, _BATCH_DRAWS, sampler):
            yield self.collate([row.dump() for row in rows])

    def _draw(
        self, encoded: Sequence[Encoded], batch: int, draws: int, sampler: GroupedSampler | None
    ) -> Iterator[list[Encoded]]:
        batch = min(batch, len(encoded))
        drawn = _drawn(len(encoded), batch, draws) if sampler is None else _grouped(sampler, batch, draws)
        return ([encoded[i] for i in chosen] for chosen in drawn)

    def _labelled(self, row: Encoded) -> int:
        """Tokens whose logits are in the loss: nothing predicts the first token of a decoder's row."""
        labels = row.labels if self.encoder_decoder else row.labels[1:]
        return sum(label != IGNORED for label in labels)

    def _mixed(self, rows: Sequence[Row]) -> list[Encoded]:
        """Rows of which some or all are conversations, in their order."""
        chat = self._chat()
        others = iter(self.encode([row for row in rows if not row.messages]))
        return [self._conversation(chat, row) if row.messages else next(others) for row in rows]

    def _mixed_prompts(self, rows: Sequence[Row], new_tokens: int) -> list[list[int]]:
        chat = self._chat()
        others = iter(self.prompts([row for row in rows if not row.messages], new_tokens))
        most = self.data.max_length - min(new_tokens, self.data.target_length, self.data.max_length // 2)
        return [chat.prompt(row.messages, most, row.where) if row.messages else next(others) for row in rows]

    def _conversation(self, chat: ChatTemplate, row: Row) -> Encoded:
        found = chat.tokens(row.messages, self.data.max_length, row.where)
        labels = [i if learnt else IGNORED for i, learnt in zip(found.ids, found.learnt, strict=True)]
        return Encoded(found.ids, labels)

    def _chat(self) -> ChatTemplate:
        if self.encoder_decoder:
            raise InputError(
                "data.format",
                "an encoder-decoder reads no conversation",
                "take a decoder, or write the rows as source and target",
            )
        return ChatTemplate.of(self.tokenizer)

    def _split_prompts(self, rows: Sequence[Row]) -> list["_Prompt"]:
        start, two_sided = self._start, self.encoder_decoder
        tasks: list[Task] = [row.task or self.data.task or "summarization" for row in rows]
        words = {task: (_PREFIXES[task], "") if two_sided else _PROMPTS[task] for task in set(tasks)}
        tails = {task: self._ids([after])[0] if after else [] for task, (_, after) in words.items()}
        # only plain text has no words around it
        befores = [words[t][0] if r.source or two_sided else "" for r, t in zip(rows, tasks, strict=True)]
        sources = self._ids([before + row.source for before, row in zip(befores, rows, strict=True)])
        prompts = [
            _Prompt(start, ids, tails[task] if row.source else [])
            for ids, row, task in zip(sources, rows, tasks, strict=True)
        ]
        self._check_room(max((prompt.least for prompt in prompts), default=0))
        return prompts

    def _check_room(self, least_prompt: int) -> None:
        """Raise InputError if a row is too long even with no token of the source and one of the target."""
        least_target = 1 + len(self._end)
        # an encoder-decoder's prompt has a token of the source, or of the words before it, and an end token
        for key, given, least in (
            ("max_length", self.data.max_length, least_prompt + least_target),
            ("target_length", self.data.target_length, least_target),
        ):
            if given < least:
                raise InputError(
                    f"data.{key}",
                    f"{given} is too short for a token of text with what this tokenizer and task put around it",
                    f"set it to {least} or more; rows need room for their text, too",
                )

    def _pack(self, rows: Sequence[Row]) -> list[Encoded]:
        if self.encoder_decoder:
            raise InputError(
                "data.pack", "an encoder-decoder has no running text", "leave it out, or take a decoder"
            )
        if any(row.source for row in rows):
            raise InputError(
                "data.pack", "the rows have prompts", 'leave it out, or set data.task = "causal"'
            )
        start, end, length = self._start, self._end, self.data.max_length
        texts = self._ids([row.target for row in rows])
        stream = [token for ids in texts for token in (*start, *ids, *end)]
        blocks = [stream[i : i + length] for i in range(0, len(stream), length)]
        # a block of one token has nothing to predict
        return [Encoded(block, list(block)) for block in blocks if len(block) > 1]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    @property
    def _start(self) -> list[int]:
        """The token that this tokenizer itself puts before a text, if any."""
        ids = self.tokenizer("a")["input_ids"]
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and ids[:1] == [bos] else []

    @property
    def _end(self) -> list[int]:
        end = self.tokenizer.eos_token_id
        return [] if end is None else [end]


@cache
def _on_board() -> bool:
    return torch.cuda.is_available()


def _drawn(rows: int, batch: int, draws: int) -> Iterator[list[int]]:
    rng = np.random.default_rng(0)
    for _ in range(draws):
        yield rng.choice(rows, batch, replace=False).tolist()


def _grouped(sampler: GroupedSampler, batch: int, draws: int) -> Iterator[list[int]]:
    """Whole epochs, so that the mean is over all rows."""
    epochs = max(draws * batch // max(len(sampler), 1), 1)
    for epoch in range(epochs):
        order = sampler.order(epoch)
        batches = [order[i : i + batch] for i in range(0, len(order), batch)]
        yield from batches[:: max(len(batches) // draws, 1)]


@dataclass(frozen=True, slots=True)
class _Prompt:
    start: list[int]
    source: list[int]
    tail: list[int]

    @property
    def least(self) -> int:
        return len(self.start) + len(self.tail)

    def cut(self, most: int) -> list[int]:
        """All of it in `most` tokens: the source gives way."""
        return self.start + self.source[: max(most - self.least, 0)] + self.tail

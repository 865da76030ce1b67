"""Generated text: the same for a row alone and in a batch, what the model would write token by token, interruptible."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama, tiny_t5, word_rows

from carbonsched.model.job import DataPart, EvaluatePart, ModelPart
from trainer.data.encoding import TextEncoder
from trainer.data.field_layouts import Row
from trainer.data.models import load_model
from trainer.evaluation.generate import Generation, generate
from trainer.job.directives import Stopped

torch.set_num_threads(1)
DATA = DataPart(name_or_path="x", max_length=32, target_length=8)
HOW = Generation(max_new_tokens=6, batch_size=3)
ROWS = [Row(" ".join(r["source"].split()[: 3 + 2 * i]), r["target"]) for i, r in enumerate(word_rows(5))]


def load(folder: Path) -> tuple[Any, TextEncoder]:
    spec = ModelPart(name_or_path=str(folder))
    return load_model(spec), TextEncoder.of(spec, DATA)


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5])
@pytest.mark.parametrize("beams", [1, 3])
def test_neighbours_and_padding_do_not_change_a_text(make: Any, beams: int, tmp_path: Path) -> None:
    model, encoder = load(make(tmp_path))
    torch.manual_seed(1)
    for parameter in model.parameters():  # as made, a T5 repeats its start token for ever
        parameter.data.normal_(std=0.4)
    how = replace(HOW, num_beams=beams)
    together = generate(model, encoder, ROWS, how)
    alone = [generate(model, encoder, [row], how)[0] for row in ROWS]
    assert together == alone
    assert len(set(together)) > 1, "a text that never varies would prove nothing"


def test_it_is_what_the_model_finds_likeliest_token_by_token(tmp_path: Path) -> None:
    model, encoder = load(tiny_llama(tmp_path))
    texts = generate(model, encoder, ROWS, HOW)
    assert model.training
    model.eval()
    for row, text in zip(ROWS, texts, strict=True):
        (ids,) = encoder.prompts([row], HOW.max_new_tokens)
        assert encoder.tokenizer.decode(ids).split()[-2:] == ["Summary", ":"]
        written: list[int] = []
        for _ in range(HOW.max_new_tokens):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids + written])).logits
            written.append(int(logits[0, -1].argmax()))
            if written[-1] == encoder.tokenizer.eos_token_id:
                break
        assert text == encoder.tokenizer.decode(written, skip_special_tokens=True).strip()


def test_random_state_and_a_models_own_sampling_do_not_matter(tmp_path: Path) -> None:
    model, encoder = load(tiny_llama(tmp_path))
    plain = generate(model, encoder, ROWS, HOW)
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    model.generation_config.repetition_penalty = 3.0
    model.generation_config.min_length = 30
    before = torch.random.get_rng_state()
    assert generate(model, encoder, ROWS, HOW) == plain
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("make", [tiny_llama, tiny_t5])
@pytest.mark.parametrize("method", ["lora", "prefix"])
def test_a_model_with_adapters_writes_what_its_forward_pass_says(
    make: Any, method: str, tmp_path: Path
) -> None:
    from carbonsched.model.job import TrainPart
    from trainer.methods.registry import add_adapters

    model, encoder = load(make(tmp_path))
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.4)
    plain = generate(model, encoder, ROWS, HOW)
    model = add_adapters(model, TrainPart.model_validate({"method": method}))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=2.0)
    together = generate(model, encoder, ROWS, HOW)
    assert together != plain, "adapters that change nothing would prove nothing"
    assert together == [generate(model, encoder, [row], HOW)[0] for row in ROWS]
    assert together == [token_by_token(model, encoder, row) for row in ROWS]


def token_by_token(model: Any, encoder: TextEncoder, row: Row) -> str:
    """The most likely text, by one whole forward pass a token: the pass that is trained, without a cache of what was read."""
    two_sided = model.config.is_encoder_decoder
    ids = encoder.prompts([row], HOW.max_new_tokens)[0]
    written = [model.config.decoder_start_token_id] if two_sided else list(ids)
    start = len(written)
    model.eval()
    while len(written) < start + HOW.max_new_tokens:
        source = torch.tensor([ids if two_sided else written])
        target = {"decoder_input_ids": torch.tensor([written])} if two_sided else {}
        with torch.no_grad():
            logits = model(input_ids=source, attention_mask=torch.ones_like(source), **target).logits
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == encoder.tokenizer.eos_token_id:
            break
    return str(encoder.tokenizer.decode(written[start:], skip_special_tokens=True)).strip()


def test_a_signal_ends_it_between_tokens(tmp_path: Path) -> None:
    model, encoder = load(tiny_llama(tmp_path))
    asked: list[bool] = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) > 3

    with pytest.raises(Stopped):
        generate(model, encoder, ROWS, HOW, stop)
    assert len(asked) == 4
    assert model.training


def test_a_long_source_gives_way_and_an_answer_is_one_line(tmp_path: Path) -> None:
    encoder = load(tiny_llama(tmp_path))[1]
    (ids,) = encoder.prompts([Row("w1 " * 90, "w2")], 6)
    assert len(ids) == 32 - 6
    assert encoder.tokenizer.decode(ids).split()[-2:] == ["Summary", ":"]
    from trainer.evaluation.generate import _clean

    assert _clean(" one\ntwo ", "qa") == "one"
    assert _clean(" one\ntwo ", "summarization") == "one\ntwo"


def test_settings_come_from_the_job() -> None:
    assert Generation.of(EvaluatePart(), DATA, 4) == Generation(8, 1, 4)
    asked = EvaluatePart(max_new_tokens=3, num_beams=2, batch_size=16)
    assert Generation.of(asked, DATA, 4).dump() == {
        "max_new_tokens": 3,
        "num_beams": 2,
        "batch_size": 16,
        "do_sample": False,
    }

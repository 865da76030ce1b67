"""Conversations in tokens: the assistant's words and the end of each of its turns are learnt, nothing else."""

from pathlib import Path
from typing import Any

import pytest
from support.models import tiny_tokenizer

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart
from trainer.data.conversations import Message
from trainer.data.encoding import IGNORED, TextEncoder
from trainer.data.field_layouts import Row

TURN = "<s>{{ m.role }} : {{ m.content | trim }}</s>\n"
LOOP = "{% for m in messages %}TURN{% endfor %}{% if add_generation_prompt %}<s>assistant : {% endif %}"
PLAIN = LOOP.replace("TURN", TURN)
LAST_THINKS = LOOP.replace(
    "TURN",
    "<s>{{ m.role }} : {% if loop.last and m.role == 'assistant' %}w40 w40 {% endif %}"
    "{{ m.content.split('w41')[-1] | trim }}</s>",
)
MARKED = LOOP.replace(
    "TURN",
    "<s>{{ m.role }} : {% if m.role == 'assistant' %}{% generation %}{{ m.content }} w42</s>{% endgeneration %}"
    "{% else %}{{ m.content }}</s>{% endif %}",
)
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + PLAIN
TALK = (("user", "w1 w2"), ("assistant", "w3"), ("user", "w4"), ("assistant", " w5 w6 "))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    found = tiny_tokenizer(tmp_path)
    found.chat_template = PLAIN
    return found


def row(*turns: tuple[str, str], learnt_from: int = 0) -> Row:
    said = tuple(
        Message(role, text, role == "assistant" and i >= learnt_from) for i, (role, text) in enumerate(turns)
    )
    return Row("", "x", messages=said, where="x.jsonl: line 7")


def encode(tokenizer: Any, *rows: Row, two_sided: bool = False, **fields: Any) -> list[tuple[str, str]]:
    """(all tokens, those learnt) of each row."""
    data = DataPart(name_or_path="x", **fields)
    found = []
    for one in TextEncoder(tokenizer, data, two_sided).encode(rows):
        learnt = [i for i, label in zip(one.input_ids, one.labels, strict=True) if label != IGNORED]
        assert [label for label in one.labels if label != IGNORED] == learnt
        found.append((tokenizer.decode(one.input_ids), tokenizer.decode(learnt)))
    return found


def test_every_turn_of_the_assistant_is_learnt_with_its_end(tokenizer: Any) -> None:
    ((text, learnt),) = encode(tokenizer, row(*TALK))
    assert learnt.split() == ["w3", "</s>", "w5", "w6", "</s>"]
    assert text.count("<s>") == 4


def test_of_prompt_and_completion_the_completion_alone(tokenizer: Any) -> None:
    ((_, learnt),) = encode(tokenizer, row(*TALK, learnt_from=2))
    assert learnt.split() == ["w5", "w6", "</s>"]


@pytest.mark.parametrize(
    ("template", "learnt"),
    [
        (LAST_THINKS, "w3 </s> w5 w6 </s>"),
        (MARKED, "w3 w42 </s> w5 w6 w42 </s>"),
        (STRICT, "w3 </s> w5 w6 </s>"),
    ],
)
def test_templates_that_do_more_than_join(tokenizer: Any, template: str, learnt: str) -> None:
    tokenizer.chat_template = template
    ((_, found),) = encode(tokenizer, row(*TALK))
    assert found.split() == learnt.split()


@pytest.mark.parametrize(
    ("template", "turns", "message"),
    [
        (None, TALK, r"model\.name_or_path: its tokenizer has no chat template"),
        (
            STRICT,
            (("system", "w1"), *TALK),
            r"line 7: this tokenizer's chat template refuses it \(no system here\)",
        ),
        (
            "{% for m in messages %}{{ m.role }}{% endfor %}",
            TALK,
            "changes turn 2 so that it cannot be found",
        ),
        (PLAIN + PLAIN, TALK, "changes turn 2 so that it cannot be found"),
        ("{% for m in messages %", TALK, "line 7: this tokenizer's chat template refuses it"),
    ],
)
def test_what_a_template_cannot_do_is_one_line(
    tokenizer: Any, template: str | None, turns: tuple[tuple[str, str], ...], message: str
) -> None:
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=message) as caught:
        encode(tokenizer, row(*turns))
    assert "\n" not in str(caught.value)


def test_an_encoder_decoder_reads_none(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"data\.format: an encoder-decoder reads no conversation"):
        encode(tokenizer, row(*TALK), two_sided=True)


def test_of_a_long_conversation_the_oldest_gives_way_then_the_question_then_the_answer(
    tokenizer: Any,
) -> None:
    talk = row(("system", "w9"), *TALK)
    ((text, learnt),) = encode(tokenizer, talk, max_length=18)
    assert "w9" in text
    assert "w4" in text
    assert "w1" not in text
    assert learnt.split() == ["w5", "w6", "</s>"]
    long = row(("user", "w1 " * 30), ("assistant", "w2 w3"))
    ((text, learnt),) = encode(tokenizer, long, max_length=14)
    assert learnt.split() == ["w2", "w3", "</s>"]
    assert len(text.split()) == 14
    ((text, learnt),) = encode(tokenizer, long, max_length=9)
    assert learnt.split() == ["w2"]
    with pytest.raises(InputError, match=r"data\.max_length: 8 leaves no room .*set it to 9 or more"):
        encode(tokenizer, long, max_length=8)


def test_conversations_stand_among_other_rows(tokenizer: Any) -> None:
    found = encode(tokenizer, Row("w1", "w2"), row(*TALK), Row("w3", "w4"))
    assert [learnt.split()[0] for _, learnt in found] == ["w2", "w3", "w4"]


def test_text_is_generated_from_all_before_the_last_answer(tokenizer: Any) -> None:
    encoder = TextEncoder(tokenizer, DataPart(name_or_path="x", max_length=24), False)
    whole, other = encoder.prompts([row(*TALK), Row("w1", "w2")], 2)
    assert tokenizer.decode(whole).split()[-3:] == ["<s>", "<unk>", ":"]
    assert "w5" not in tokenizer.decode(whole)
    assert tokenizer.decode(other).split()[0] == "w1"
    short = TextEncoder(tokenizer, DataPart(name_or_path="x", max_length=16), False)
    assert "w1" not in tokenizer.decode(short.prompts([row(*TALK)], 4)[0])

"""Conversations as files have them: TRL's messages, its conversational prompt and completion, ShareGPT's turns."""

from pathlib import Path
from typing import Any

import pytest
from support.models import write_jsonl

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart
from trainer.data.conversations import Message
from trainer.data.field_layouts import Row
from trainer.data.reading import load_rows

USER = {"role": "user", "content": "Hi?"}
ANSWER = {"role": "assistant", "content": "Ho."}


def load(folder: Path, record: dict[str, Any], **fields: Any) -> Row:
    file = write_jsonl(folder / "train.jsonl", [record])
    return load_rows(DataPart(name_or_path=str(file), **fields)).train[0]


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        ({"messages": [USER, ANSWER]}, {}),
        ({"messages": [USER, ANSWER], "source": "ultrachat", "prompt": "Hi?"}, {}),
        ({"messages": [USER, ANSWER]}, {"task": "causal"}),
        ({"conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Ho."}]}, {}),
        ({"prompt": [USER], "completion": [ANSWER]}, {}),
        ({"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "Ho."}]}]}, {}),
        ({"talk": [USER, ANSWER]}, {"format": "chat", "source": "talk"}),
        ({"source": "a", "target": "b", "messages": [USER, ANSWER]}, {"format": "chat"}),
    ],
)
def test_a_conversation_is_recognised_or_named(
    tmp_path: Path, record: dict[str, Any], fields: dict[str, Any]
) -> None:
    row = load(tmp_path, record, **fields)
    assert row.messages == (Message("user", "Hi?", False), Message("assistant", "Ho.", True))
    assert (row.format, row.source, row.target) == ("chat", "user: Hi?", "Ho.")


def test_answers_in_the_prompt_are_not_learnt(tmp_path: Path) -> None:
    row = load(tmp_path, {"prompt": [USER, ANSWER, USER], "completion": [ANSWER]})
    assert [message.learnt for message in row.messages] == [False, False, False, True]


def test_named_fields_go_before(tmp_path: Path) -> None:
    both = {"messages": [USER, ANSWER], "prompt": "a", "completion": "b"}
    assert load(tmp_path, both, format="prompt-completion") == Row("a", "b", task="causal")
    assert load(tmp_path, both, source="prompt", target="completion") == Row("a", "b")
    fields = {"source": "a", "target": "b", "instruction": "c", "output": "d"}
    assert load(tmp_path, fields) == Row("a", "b")
    assert load(tmp_path, fields, format="instruction") == Row("c", "d", task="instruction")
    with pytest.raises(InputError, match="no field 'source'"):
        load(tmp_path, {"instruction": "c", "output": "d"}, format="fields")
    with pytest.raises(InputError, match="no field 'instruction'"):
        load(tmp_path, {"prompt": "c", "completion": "d"}, format="instruction")


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([USER], "line 1 has no turn of the assistant"),
        ([USER, {"role": "assistant", "content": " "}], "turn 2 of 'messages' holds no text"),
        ([USER, {"role": "assistant", "content": None}], "turn 2 of 'messages' holds no text"),
        ([{"role": "user", "content": [{"type": "image"}]}, ANSWER], "turn 1 .*only text is learnt"),
        ([USER, {**ANSWER, "tool_calls": [{"id": 1}]}], "turn 2 of 'messages' calls a tool"),
        ([{"role": "user", "content": "\ud83d"}, ANSWER], "turn 1 .*half of a character"),
        ([{"role": 3, "content": "a"}, ANSWER], "turn 1 of 'messages' has no role"),
    ],
)
def test_a_turn_that_cannot_be_learnt_is_named(tmp_path: Path, turns: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=f"train.jsonl: line 1.*{message}|train.jsonl: {message}"):
        load(tmp_path, {"messages": turns})


def test_what_the_job_calls_chat_and_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="field 'messages' is no list of turns"):
        load(tmp_path, {"messages": "Hi?"}, format="chat")
    with pytest.raises(InputError, match="has no field 'messages'"):
        load(tmp_path, {"text": "Hi?"}, format="chat")

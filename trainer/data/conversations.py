"""read_messages reads the turns of a conversation from a record's field, as TRL reads them, and ShareGPT's spelling of them.

| fields of a turn | |
|---|---|
| role, content | a text, or a list of parts of which all are texts |
| from, value | the same; `human` is user, `gpt` is assistant |
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from carbonsched.errors import InputError

ASSISTANT = "assistant"
_ROLES = {"human": "user", "gpt": ASSISTANT, "bot": ASSISTANT, "chatgpt": ASSISTANT, "model": ASSISTANT}


class Message(NamedTuple):
    """One turn of a conversation.

    Example:
        >>> Message("user", "Hello?", learnt=False).role
        'user'
    """

    role: str
    content: str
    learnt: bool
    """Whether the loss is taken of it: of the assistant's turns alone."""


def is_conversation(value: Any) -> bool:
    """Whether a field holds turns, of whatever content."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(turn, dict) and ("role" in turn or "from" in turn) for turn in value)
    )


def read_messages(value: Any, name: str, where: str, *, learnt: bool = True) -> tuple[Message, ...]:
    """The turns in field `name`. learnt: whether the assistant's are learnt. Raises InputError that names the turn."""
    if not is_conversation(value):
        _refuse(
            f"{where}: field {name!r} is no list of turns",
            "write [{role: …, content: …}, …], or drop that row",
        )
    found = []
    for number, turn in enumerate(value, 1):
        said = f"{where}: turn {number} of {name!r}"
        role = turn["role"] if "role" in turn else turn["from"]
        if not isinstance(role, str) or not role.strip():
            _refuse(f"{said} has no role", "give each turn a role and a content")
        if turn.get("tool_calls"):
            _refuse(f"{said} calls a tool, which is not read", "drop that row")
        role = _ROLES.get(role, role) if "role" not in turn else role
        text = _content(turn, said)
        if role == ASSISTANT and learnt and not text.strip():
            _refuse(f"{said} holds no text", "fix or drop that row")
        found.append(Message(role, text, learnt and role == ASSISTANT))
    return tuple(found)


def check_learnt(messages: tuple[Message, ...], where: str) -> None:
    """Raises InputError: no turn of the assistant, so nothing to learn."""
    if not any(message.learnt for message in messages):
        _refuse(f"{where} has no turn of the assistant, so nothing is learnt from it", "drop that row")


def as_text(messages: tuple[Message, ...]) -> str:
    """For people: a turn a line."""
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def _content(turn: Mapping[str, Any], said: str) -> str:
    value = turn.get("content") if "role" in turn else turn.get("value")
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        _refuse(f"{said} holds no text", "fix or drop that row; only text is learnt")
    text = "".join(texts)  # type: ignore[arg-type]
    if text.encode("utf-8", "replace").decode() != text:
        _refuse(
            f"{said} holds half of a character (a lone surrogate), which no tokenizer reads",
            "fix or drop that row",
        )
    return text


def _refuse(problem: str, hint: str) -> NoReturn:
    raise InputError("data.name_or_path", problem, hint)

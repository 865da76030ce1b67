"""Reads source and target of a row from the fields that the job names, or from those of a data set that is known by its fields.

Only where `data.source` and `data.target` are left at their defaults and a row lacks one of them is it matched against the
layouts below, by the fields it has; a name that the user wrote is always taken at its word, and `data.format` names a layout.

| fields | data set | source | target |
|---|---|---|---|
| messages (or conversations) | chat, as TRL and ShareGPT have it | the turns | all turns of the assistant |
| prompt, completion, both lists of turns | chat, as TRL reads it | the turns | the assistant's turns of the completion |
| dialogue, summary (or summary1, summary2, …) | DialogSum | the dialogue | the summary; all of them are references |
| goal, sol1, sol2, label | PIQA | the goal and both solutions | the text of the right solution |
| question, answers | WebQuestions, the hub's | the question | the first answer; all of them are references |
| qText, answers | WebQuestions, the JSON list | the same | the same |
| prompt, completion | as TRL reads them | the prompt, with no words around it | the completion |
| instruction, output (and input) | Alpaca | the instruction, then the input where there is one | the output |

SciTLDR has `source` (sentences, joined) and `target` (references, the first is learnt), so the defaults read it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, NoReturn

from carbonsched.errors import InputError
from carbonsched.model.job import DataFormat, DataPart
from trainer.data.conversations import Message, as_text, check_learnt, is_conversation, read_messages

Task = Literal["summarization", "qa", "causal", "instruction"]
"""As `data.task`; `instruction` is that of Alpaca's layout alone."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example: the text that is given and the text that is learnt.

    Example:
        >>> Row("a question", "its answer").references
        ('its answer',)
    """

    source: str
    target: str
    """What is learnt."""
    references: tuple[str, ...] = ()
    """All that count as right when text is scored, the learnt one first; () means that one alone."""
    task: Task | None = None
    """Which words stand around the source; None: as the job says."""
    messages: tuple[Message, ...] = ()
    """Of a conversation: its turns, which the tokenizer's chat template renders; source and target are for people then."""
    format: DataFormat = field(default="fields", compare=False)
    """What the record was read as."""
    where: str = field(default="", compare=False)
    """File and line, of conversations alone: what a template refuses is found only later."""

    def __post_init__(self) -> None:
        if not self.references:
            object.__setattr__(self, "references", (self.target,))


class Layout(NamedTuple):
    """The fields of a well-known kind of data set: how to recognise it, and how to read a record.

    Example::

        layout = recognised(record, part)
        source, texts = layout.read(record, "row 3")
    """

    name: DataFormat
    task: Task
    fits: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any], str], tuple[str, list[str]]]
    """(record, where) → source and references, the learnt one first. Raises InputError."""


def read_row(record: Any, part: DataPart, where: str) -> Row:
    """One record as a row; `where` names it in errors. Raises InputError: no such field, no text in it."""
    if not isinstance(record, dict):
        raise InputError("data.name_or_path", f"{where} is not an object", "write one {…} per row")
    source_field, target_field = part.source, part.target
    turns = _conversation(record, part)
    if turns is not None:
        return _chat_row(record, *turns, where)
    if part.task == "causal" and part.format in (None, "fields"):
        # plain text has one field; a source, where there is one, is a prompt that is not learnt from
        if target_field not in record and "text" in record:
            target_field = "text"
        prompt = source_field != target_field and record.get(source_field)
        source = _text(record, source_field, where, "data.source") if prompt else ""
        return Row(source, *_learnt(_texts(record, target_field, where, "data.target")))
    layout = recognised(record, part)
    if layout is not None:
        source, texts = layout.read(record, where)
        return Row(source, *_learnt(texts), part.task or layout.task, format=layout.name)
    _check_pair(record, part, where)
    source = _text(record, source_field, where, "data.source")
    texts = _texts(record, target_field, where, "data.target")
    return Row(source, *_learnt(texts))


def _check_pair(record: Mapping[str, Any], part: DataPart, where: str) -> None:
    """Raises InputError where a text would be learnt from itself, or no two fields could be a pair."""
    if part.source == part.target:
        raise InputError(
            "data.target",
            f"is {part.target!r}, as data.source is: a model would learn to repeat what it reads",
            _AS_PLAIN.format(part.target),
        )
    written = [str(name) for name, value in record.items() if isinstance(value, str) and value.strip()]
    if len(written) == 1 and not {part.source, part.target} & record.keys():
        name = _printable(written[0])
        raise InputError(
            "data.task",
            f"{where} has one field of text, {name!r}, and no pair to learn",
            _AS_PLAIN.format(name),
        )


_AS_PLAIN: Final = 'to learn that text itself set data.task = "causal" and data.target = "{}"'


def recognised(record: Mapping[str, Any], part: DataPart) -> Layout | None:
    """The layout that `record` has, where the job names no fields and the default ones are absent."""
    if part.format is not None:
        named = [layout for layout in LAYOUTS if layout.name == part.format]
        return next((layout for layout in named if layout.fits(record)), named[0] if named else None)
    if not _names_no_field(part) or (part.source in record and part.target in record):
        return None
    return next((layout for layout in LAYOUTS if layout.fits(record)), None)


def _names_no_field(part: DataPart) -> bool:
    defaults = DataPart.model_fields
    return (part.source, part.target) == (defaults["source"].default, defaults["target"].default)


_TURNS: Final = ("messages", "conversations")


def _conversation(record: Mapping[str, Any], part: DataPart) -> tuple[str, str | None] | None:
    """(field of the turns, field of more turns that alone are learnt) where the record is, or the job says it is, a conversation."""
    if part.format == "chat" and not _names_no_field(part):
        given = [name for name in (part.source, part.target) if name in record]
        return (given[0], given[1] if len(given) > 1 else None) if given else (part.source, None)
    if part.format not in (None, "chat"):
        return None
    if part.format is None and (
        not _names_no_field(part) or (part.source in record and part.target in record)
    ):
        return None
    name = next((name for name in _TURNS if is_conversation(record.get(name))), None)
    if name is not None:
        return name, None
    if is_conversation(record.get("prompt")) and is_conversation(record.get("completion")):
        return "prompt", "completion"
    if part.format == "chat":
        return next((name for name in _TURNS if name in record), _TURNS[0]), None
    return None


def _chat_row(record: Mapping[str, Any], first: str, second: str | None, where: str) -> Row:
    for name in (first, second):
        if name is not None and name not in record:
            known = _printable(", ".join(str(k) for k in record)) or "none"
            raise InputError(
                "data.source",
                f"{where} has no field {name!r}",
                f"set data.source to one of its fields: {known}",
            )
    messages = read_messages(record[first], first, where, learnt=second is None)
    if second is not None:
        messages += read_messages(record[second], second, where)
    check_learnt(messages, where)
    last = max(i for i, message in enumerate(messages) if message.learnt)
    return Row(
        as_text(messages[:last]),
        messages[last].content.strip(),
        messages=messages,
        format="chat",
        where=where,
    )


def _learnt(texts: list[str]) -> tuple[str, tuple[str, ...]]:
    return texts[0], tuple(texts)


def _text(record: Mapping[str, Any], name: str, where: str, key: str) -> str:
    """A field as one text; a list of sentences is joined."""
    return " ".join(_texts(record, name, where, key))


def _texts(record: Mapping[str, Any], name: str, where: str, key: str) -> list[str]:
    """A field as texts, empty ones left out."""
    if name not in record:
        known = _printable(", ".join(str(k) for k in record)) or "none"
        raise InputError(key, f"{where} has no field {name!r}", f"set {key} to one of its fields: {known}")
    value = record[name]
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        items = []
    texts = [item.strip() for item in items if item.strip()]
    if not texts:
        raise InputError(key, f"{where}: field {name!r} holds no text", "fix or drop that row")
    for text in texts:
        if _printable(text) != text:
            raise InputError(
                key,
                f"{where}: field {name!r} holds half of a character (a lone surrogate), which no tokenizer reads",
                "fix or drop that row",
            )
    return texts


def _printable(text: str) -> str:
    r"""As UTF-8 can hold it: JSON can write half of a surrogate pair, which becomes \\ud83d."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# ---- known data sets

_NUMBERED = re.compile(r"summary\d+")


def _dialogue(record: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
    names = sorted((n for n in record if _NUMBERED.fullmatch(n)), key=lambda n: int(n[7:]))
    fields = [name for name in ("summary", *names) if record.get(name)] or ["summary"]
    references = [text for name in fields for text in _texts(record, name, where, "data.target")]
    return _text(record, "dialogue", where, "data.source"), references


def _choice(record: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
    label = record.get("label")
    if label in (None, ""):
        _no_label(
            where, "has no label", "put the labels beside the file, as NAME-labels.lst with one per line"
        )
    if str(label).strip() not in ("0", "1"):
        _no_label(
            where,
            f"has the label {label!r}",
            "use a split whose labels are 0 or 1: the test split's are hidden",
        )
    goal, *solutions = (_text(record, name, where, "data.source") for name in ("goal", "sol1", "sol2"))
    source = f"{goal}\nSolution 1: {solutions[0]}\nSolution 2: {solutions[1]}"
    return source, [solutions[int(str(label))]]


def _no_label(where: str, problem: str, hint: str) -> NoReturn:
    raise InputError("data.target", f"{where} {problem}", hint)


def _answers(question: str) -> Callable[[Mapping[str, Any], str], tuple[str, list[str]]]:
    def read(record: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
        return _text(record, question, where, "data.source"), _texts(record, "answers", where, "data.target")

    return read


def _completion(record: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
    return _text(record, "prompt", where, "data.source"), _texts(record, "completion", where, "data.target")


def _instruction(record: Mapping[str, Any], where: str) -> tuple[str, list[str]]:
    source = _text(record, "instruction", where, "data.source")
    if record.get("input"):
        source += f"\n\n### Input:\n{_text(record, 'input', where, 'data.source')}"
    return source, _texts(record, "output", where, "data.target")


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda record: all(name in record for name in names)


LAYOUTS = (
    Layout(
        "dialogue",
        "summarization",
        lambda r: "dialogue" in r and any(n == "summary" or _NUMBERED.fullmatch(n) for n in r),
        _dialogue,
    ),
    Layout("choice", "qa", _has("goal", "sol1", "sol2"), _choice),
    Layout("questions", "qa", _has("question", "answers"), _answers("question")),
    Layout("questions", "qa", _has("qText", "answers"), _answers("qText")),
    Layout("prompt-completion", "causal", _has("prompt", "completion"), _completion),
    Layout("instruction", "instruction", _has("instruction", "output"), _instruction),
)

"""ChatTemplate turns conversations into tokens by the tokenizer's own chat template, and finds the assistant's tokens in them.

Where the template marks what the assistant generates (`{% generation %}`), that is learnt. Else each learnt turn is found by
rendering the conversation once more with another text in its place: what differs is the turn, whatever a template does with
earlier or last turns. Learnt is its text and the token that ends it, so that the model learns to stop.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from carbonsched.errors import InputError
from trainer.data.conversations import Message

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_MARK = "carbonsched0mark1"
"""Stands for the text of a turn; templates leave letters and digits unchanged."""


@dataclass(frozen=True, slots=True)
class ChatTokens:
    """A rendered conversation.

    Example:
        >>> ChatTokens([5, 6, 7], [False, True, True]).learnt.index(True)
        1
    """

    ids: list[int]
    learnt: list[bool]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The chat template of one tokenizer.

    Example::

        tokens = ChatTemplate.of(tokenizer).tokens(row.messages, 512, row.where)
    """

    tokenizer: Any
    specials: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any) -> "ChatTemplate":
        """Raises InputError: the tokenizer has no template, or cannot say where its tokens stand in the text."""
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(
                "model.name_or_path",
                "its tokenizer has no chat template, and the rows are conversations",
                "take a model made for chat, save a chat_template with its tokenizer, or write the rows as prompt and completion",
            )
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                "model.name_or_path",
                "its tokenizer has no fast version, by which the assistant's tokens are found",
                "save a tokenizer.json with it",
            )
        added = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
        return cls(tokenizer, frozenset({*tokenizer.all_special_ids, *added}))

    def tokens(self, messages: Sequence[Message], most: int, where: str) -> ChatTokens:
        """At most `most` tokens. The oldest exchanges are dropped first, then the text before the last answer is cut, then its end. Raises
        InputError if the template refuses the conversation, changes a turn so that it cannot be found, or there is no room."""
        kept: Sequence[Message] | None = messages
        while kept is not None:
            found = self._tokens(kept, where)
            if len(found.ids) <= most:
                return found
            last, kept = kept, _without_oldest(kept)
        return self._cut(found, last, most, where)

    def prompt(self, messages: Sequence[Message], most: int, where: str) -> list[int]:
        """Token ids to generate the last learnt turn from; if there are too many, the oldest exchanges are dropped, then the beginning is cut."""
        kept: Sequence[Message] | None = messages
        ids: list[int] = []
        while kept is not None:
            end = max(i for i, message in enumerate(kept) if message.learnt)
            text = self._render([(m.role, m.content) for m in kept[:end]], where, prompt=True)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) <= most:
                return ids
            kept = _without_oldest(kept)
        return ids[len(ids) - most :]

    def _tokens(self, messages: Sequence[Message], where: str) -> ChatTokens:
        turns = [(m.role, m.content) for m in messages]
        text = self._render(turns, where)
        coded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = coded["input_ids"]
        offsets = coded["offset_mapping"]
        if _GENERATION.search(str(self.tokenizer.chat_template)) and all(
            m.learnt or m.role != "assistant" for m in messages
        ):
            asked = self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in turns],
                tokenize=True,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            if list(asked["input_ids"]) == ids and any(asked["assistant_masks"]):
                return ChatTokens(ids, [bool(mask) for mask in asked["assistant_masks"]])
        learnt = [False] * len(ids)
        for turn, message in enumerate(messages):
            if message.learnt:
                start, end = self._span(turns, turn, text, where)
                self._mark(learnt, ids, offsets, text, start, end)
        if not any(learnt):
            _refuse(
                f"{where}: this tokenizer's chat template shows nothing of the assistant's turns", "drop it"
            )
        return ChatTokens(ids, learnt)

    def _span(self, turns: list[tuple[str, str]], turn: int, text: str, where: str) -> tuple[int, int]:
        """The position of `turn`'s content in `text`."""
        marked = [*turns[:turn], (turns[turn][0], _MARK), *turns[turn + 1 :]]
        before, found, after = self._render(marked, where).partition(_MARK)
        start, end = len(before), len(text) - len(after)
        if not found or _MARK in after or start > end or text[:start] != before or text[end:] != after:
            _refuse(
                f"{where}: this tokenizer's chat template changes turn {turn + 1} so that it cannot be found again",
                "drop that row, or mark the assistant's words with {% generation %} in the template",
            )
        return start, end

    def _mark(
        self,
        learnt: list[bool],
        ids: list[int],
        offsets: list[tuple[int, int]],
        text: str,
        start: int,
        end: int,
    ) -> None:
        inside = [i for i, (a, b) in enumerate(offsets) if b > start and a < end and b > a]
        if not inside:
            return
        for i in inside:
            learnt[i] = True
        # the turn's end token is learnt too, if it is a token of its own and only blanks precede it
        closing = next((i for i in range(inside[-1] + 1, len(ids)) if text[slice(*offsets[i])].strip()), None)
        if closing is not None and ids[closing] in self.specials:
            learnt[inside[-1] + 1 : closing + 1] = [True] * (closing - inside[-1])

    def _cut(self, found: ChatTokens, messages: Sequence[Message], most: int, where: str) -> ChatTokens:
        """Cut the text of the turn before the last answer from its end, then the end of the answer."""
        ids, learnt = found.ids, found.learnt
        last = max(i for i, message in enumerate(messages) if message.learnt)
        if last > 0 and messages[last - 1].content.strip():
            turns = [(m.role, m.content) for m in messages]
            text = self._render(turns, where)
            start, end = self._span(turns, last - 1, text, where)
            offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)[
                "offset_mapping"
            ]
            inside = [i for i, (a, b) in enumerate(offsets) if a >= start and b <= end and b > a]
            gone = set(inside[max(len(inside) - (len(ids) - most), 1) :])
            ids = [token for i, token in enumerate(ids) if i not in gone]
            learnt = [mark for i, mark in enumerate(learnt) if i not in gone]
        if not any(learnt[:most]):
            raise InputError(
                "data.max_length",
                f"{most} leaves no room for a token of the answer in {where}",
                f"set it to {learnt.index(True) + 1} or more",
            )
        return ChatTokens(ids[:most], learnt[:most])

    def _render(self, turns: Sequence[tuple[str, str]], where: str, *, prompt: bool = False) -> str:
        try:
            text: str = self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in turns],
                tokenize=False,
                add_generation_prompt=prompt,
            )
        except Exception as e:  # templates may raise anything, jinja its own errors
            first = next(iter(str(e).strip().splitlines()), type(e).__name__)
            _refuse(f"{where}: this tokenizer's chat template refuses it ({first})", "fix or drop that row")
        return text


def _without_oldest(messages: Sequence[Message]) -> Sequence[Message] | None:
    """`messages` without the oldest exchange but with the system's turn; None: nothing would be left to learn."""
    begin = next((i for i, m in enumerate(messages) if m.role not in ("system", "developer")), len(messages))
    users = [i for i in range(begin + 1, len(messages)) if messages[i].role == "user"]
    if not users or not any(message.learnt for message in messages[users[0] :]):
        return None
    return [*messages[:begin], *messages[users[0] :]]


def _refuse(problem: str, hint: str) -> NoReturn:
    raise InputError("data.name_or_path", problem, hint)

"""Chooses which of a box's boards are ours. Pure: by `power.boards`, by CUDA_VISIBLE_DEVICES, and by what else a board does.

Two orders of boards meet here. NVML's, nvidia-smi's and `power.boards`' index follows the PCI bus; CUDA's is by speed unless
CUDA_DEVICE_ORDER says PCI_BUS_ID. Where boards differ an index of CUDA's could mean any of them, and is refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from carbonsched.errors import InputError

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER: Final = "CUDA_DEVICE_ORDER"


@dataclass(frozen=True, slots=True)
class Board:
    """The properties that identify a board.

    Example:
        >>> Board("GPU-1f2e", 0, "NVIDIA A100-SXM4-80GB").displays
        False
    """

    uuid: str
    index: int
    """NVML's, as nvidia-smi shows it."""
    name: str
    displays: bool = False
    """It drives a screen."""
    instances: tuple[str, ...] = ()
    """UUIDs of its MIG instances."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Our boards, and what to report about the others.

    Example:
        >>> Choice((Board("GPU-1f2e", 0, "NVIDIA A100"),), ()).boards[0].index
        0
    """

    boards: tuple[Board, ...]
    warnings: tuple[str, ...]


def choose(boards: Sequence[Board], wanted: Sequence[str | int], env: Mapping[str, str]) -> Choice:
    """The boards that `wanted` (`power.boards`) names, or all if it is empty, as far as the environment shows them.

    A board that drives a screen is used only if it is named, or is the only one. Raises InputError if none of `wanted` exists, or the
    environment names boards that cannot be distinguished.
    """
    warnings: list[str] = []
    found = list(boards)
    if wanted:
        named = [(word, find(boards, word)) for word in wanted]
        for word in (word for word, matches in named if not matches):
            warnings.append(f"power.boards: {word!r} names no board of this box: {_list(boards)}")
        found = [board for board in boards if any(board in matches for _, matches in named)]
        if not found:
            raise InputError(
                "power.boards", f"names no board of this box: {_list(boards)}", "name one of them"
            )
    shown = visible(boards, env)
    if shown is not None:
        hidden = [board for board in found if board not in shown]
        found = [board for board in found if board in shown]
        if hidden:
            warnings.append(f"hidden from this daemon by its own {VISIBLE}={env[VISIBLE]!r}: {_list(hidden)}")
    elif not wanted and any(not board.displays for board in found):
        warnings += [
            f"GPU {board.index} ({board.uuid}) drives a screen and is left out; name it in power.boards to use it"
            for board in found
            if board.displays
        ]
        found = [board for board in found if not board.displays]
    return Choice(tuple(found), tuple(warnings))


def find(boards: Sequence[Board], word: str | int) -> list[Board]:
    """The boards that a word of `power.boards` names: an index, a UUID or its beginning, or a product's name or part of it."""
    text = str(word).strip().casefold()
    if text.isdigit():
        return [board for board in boards if board.index == int(text)]
    if text.startswith(("gpu-", "mig-")):
        return [board for board in boards if _called(board, text)]
    return [board for board in boards if text and _within(text, board.name.casefold())]


def our_instances(board: Board, wanted: Sequence[str | int], env: Mapping[str, str]) -> frozenset[str]:
    """The MIG instances of a board that jobs may be put on: the named ones, or all if only the board is named."""
    ours = set(board.instances)
    for words in (wanted, env.get(VISIBLE, "").split(",")):
        texts = [str(word).strip().casefold() for word in words]
        named = {
            uuid
            for uuid in board.instances
            for text in texts
            if _is_instance(text) and uuid.casefold().startswith(text)
        }
        whole = any(text and not _is_instance(text) and board in find([board], text) for text in texts)
        if named and not whole:
            ours &= named
    return frozenset(ours)


def _is_instance(text: str) -> bool:
    return text.startswith("mig-")


def visible(boards: Sequence[Board], env: Mapping[str, str]) -> list[Board] | None:
    """The boards that CUDA would show, in CUDA's order; None: all, since the variable is not set.

    As CUDA reads it: up to the first word that names nothing. Raises InputError if an index is ambiguous.
    """
    text = env.get(VISIBLE)
    if text is None:
        return None
    found: list[Board] = []
    for word in (part.strip() for part in text.split(",")):
        here = _cuda_word(boards, word, env)
        if here is None:
            break
        if here not in found:
            found.append(here)
    return found


def _cuda_word(boards: Sequence[Board], word: str, env: Mapping[str, str]) -> Board | None:
    if word.isdigit():
        alike = len({board.name for board in boards}) <= 1
        if not alike and env.get(ORDER) != "PCI_BUS_ID":
            raise InputError(
                VISIBLE,
                f"{word} is a board by CUDA's order, which is not known here: the boards of this box differ ({_list(boards)})",
                f"name UUIDs, or set {ORDER}=PCI_BUS_ID",
            )
        return next((board for board in boards if board.index == int(word)), None)
    if word.casefold().startswith(("gpu-", "mig-")):
        matches = [board for board in boards if _called(board, word.casefold())]
        return matches[0] if len(matches) == 1 else None
    return None


def _called(board: Board, start: str) -> bool:
    return any(uuid.casefold().startswith(start) for uuid in (board.uuid, *board.instances))


def _within(text: str, name: str) -> bool:
    """Whole words: `A10` is no part of `A100`."""
    return re.search(rf"(?<![0-9a-z]){re.escape(text)}(?![0-9a-z])", name) is not None


def _list(boards: Sequence[Board]) -> str:
    return ", ".join(f"{board.index} {board.uuid} {board.name}" for board in boards) or "none"

"""LoraSettings are the keys of `[train]` that `lora` and `greentrainer+lora` read."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import Doc


class LoraSettings(Doc):
    """Rank, scale and place of low-rank adapters.

    Example:
        >>> LoraSettings(lora_rank=4).lora_alpha
        32.0
    """

    lora_rank: Annotated[int, Field(ge=1)] = 8
    lora_alpha: Annotated[float, Field(gt=0)] = 32.0
    """The adapters' part is scaled by lora_alpha ÷ lora_rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Ends of the names of the matrices that get adapters; None: the query and value projections."""

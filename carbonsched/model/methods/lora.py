"""LoraSettings are the keys of `[train]` that `lora`, `greentrainer+lora` and `lora+tokens` read."""

from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from carbonsched.model.base import MOST, Doc, refusal

ALL_LINEAR: Final = "all-linear"


class LoraSettings(Doc):
    """Rank, scale and place of low-rank adapters.

    Example:
        >>> LoraSettings(lora_rank=4).lora_alpha
        32.0
    """

    lora_rank: Annotated[int, Field(ge=1)] = 8
    lora_alpha: Annotated[float, Field(gt=0, le=MOST)] = 32.0
    """The adapters' part is scaled by lora_alpha ÷ lora_rank."""
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    lora_targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] | None = ALL_LINEAR
    """Ends of the names of the matrices that get adapters. all-linear: every linear layer but the output embeddings, as peft has it.
    None: the query and value projections alone, as jobs have them that were accepted before there was a choice."""

    @field_validator("lora_targets", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        if isinstance(value, str) and value != ALL_LINEAR and value.strip():
            raise refusal("", f"{value!r} is no list of names", f"write [{value!r}], or {ALL_LINEAR!r}")
        if value is None or value == ALL_LINEAR:
            return value
        hint = f"name matrices, as in ['q_proj', 'v_proj'], or write {ALL_LINEAR!r}"
        if not isinstance(value, list | tuple):
            raise refusal("", f"{value!r} is no list of names", hint)
        if not value:
            raise refusal("", "is empty: there would be no adapters to train", hint)
        if bad := [name for name in value if not isinstance(name, str) or name != name.strip() or not name]:
            raise refusal("", f"{bad[0]!r} is no name of a matrix", hint)
        if ALL_LINEAR in value:
            raise refusal(
                "", f"{ALL_LINEAR!r} is no name of a matrix", f"write {ALL_LINEAR!r} without the list"
            )
        return value

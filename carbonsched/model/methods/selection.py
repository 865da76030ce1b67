"""SelectionSettings are the keys of `[train]` that the methods which select tensors read."""

from typing import Annotated, Literal

from pydantic import Field

from carbonsched.model.base import Doc

Importance = Literal[
    "update",
    "magnitude",
    "grad-norm",
    "fisher",
    "snip",
    "random",
    "concave",
    "reach",
    "spread",
    "noise",
    "curvature",
    "coverage",
]
"""The only list of what selection can maximise."""


class SelectionSettings(Doc):
    """What selection maximises, on how many batches that is measured, and what is never chosen.

    Example:
        >>> SelectionSettings(skip_earliest=0.25).importance
        'reach'
    """

    importance: Importance = "reach"
    """What selection maximises under greentrainer, greentrainer+lora and fixed."""
    importance_batches: Annotated[int, Field(ge=1)] = 1
    skip_earliest: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the model's depth, from the bottom, whose tensors are never chosen (the paper's appendix A.1)."""

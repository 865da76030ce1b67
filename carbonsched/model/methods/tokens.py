"""TokensSettings are the keys of `[train]` that the method which runs the first part of each row without gradients reads."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import Doc


class TokensSettings(Doc):
    """How much of a batch gradient flows through.

    Example:
        >>> TokensSettings(gradient_share=0.3).gradient_share
        0.3
    """

    gradient_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """τ of method tokens: share of a batch's tokens that gradient flows through, those of the answers always; None: the directed ρ decides."""

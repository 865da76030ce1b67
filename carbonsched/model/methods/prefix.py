"""PrefixSettings are the keys of `[train]` that `prefix` reads."""

from typing import Annotated

from pydantic import Field

from carbonsched.model.base import Doc


class PrefixSettings(Doc):
    """Length of the made-up tokens before each row.

    Example:
        >>> PrefixSettings().prefix_tokens
        20
    """

    prefix_tokens: Annotated[int, Field(ge=1)] = 20

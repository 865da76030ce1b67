"""LearningRateSettings are the keys of `[train]` that set how fast a method learns: its rate, and whose rate that is."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from carbonsched.model.base import MOST, Doc


class LearningRateSettings(Doc):
    """A peak learning rate, of full fine-tuning or of whatever is trained.

    Example:
        >>> LearningRateSettings().lr_scaling, LearningRateSettings.parse({"lr": 1e-3}).lr_scaling
        ('full', 'as-given')
    """

    lr: Annotated[float, Field(gt=0, le=MOST)] = 2e-5
    lr_scaling: Literal["full", "as-given"] = "full"
    """full: `lr` is full fine-tuning's, and each way of training takes its own multiple of it. as-given: `lr` is taken as it stands, always.
    A job that gives an `lr` and not this has it as given, and so has every job that was accepted before there was a choice."""

    @model_validator(mode="before")
    @classmethod
    def _own_rate(cls, data: Any) -> Any:
        """A rate that is given beside a method is that method's. Under `auto` it is full fine-tuning's: which setting runs is not known yet."""
        if not isinstance(data, dict) or "lr" not in data or "lr_scaling" in data:
            return data
        field = cls.model_fields.get("method")
        method = data.get("method", None if field is None else field.default)
        return data if method == "auto" else data | {"lr_scaling": "as-given"}

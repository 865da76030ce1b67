"""Fine-tunes language models at a FLOPs ratio that a daemon sets through a job directory (docs/protocol.md).

`trainer.GreenTrainerCallback` steers any `transformers.Trainer`; it is imported when first asked for, so that the
commands that need no torch start fast.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.training.callback import GreenTrainerCallback

__all__ = ["GreenTrainerCallback"]


def __getattr__(name: str) -> Any:
    if name == "GreenTrainerCallback":
        from trainer.training.callback import GreenTrainerCallback

        return GreenTrainerCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""carbonsched: LLM fine-tuning that obeys a carbon budget. `carbonsched.daemon` builds the daemon from its parts (docs/architecture.md)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from carbonsched.client import Client

__all__ = ["Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Client":  # the trainer and the commands do without
        return import_module("carbonsched.client").Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

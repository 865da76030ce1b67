"""Caches keys and values of the first part of rows for the second part; and those of whole rows, without gradients of the first part."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class PromptCache(DynamicCache):  # type: ignore[misc]
    """Filled by the first pass and only read by the second, so that a checkpointed block may run that again.

    Example::

        cache = PromptCache(config=model.config)
        with torch.no_grad():
            model(input_ids=first, cache=cache, use_cache=True)
        cache.close()
        model(input_ids=rest, cache=cache, use_cache=True, labels=labels).loss.backward()
    """

    _closed = False

    def close(self) -> None:
        """From now on, new keys and values are returned but not stored."""
        self._closed = True

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self._closed:
            found: tuple[Tensor, Tensor] = super().update(
                key_states, value_states, layer_idx, *args, **kwargs
            )
            return found
        layer = self.layers[layer_idx]
        return torch.cat([layer.keys, key_states], dim=-2), torch.cat([layer.values, value_states], dim=-2)


class DetachedCache(DynamicCache):  # type: ignore[misc]
    """For whole rows: removes from the gradient of one pass what two parts leave out.

    Example::

        model(**batch, cache=DetachedCache(model.config, first_part), use_cache=True).loss.backward()
    """

    def __init__(self, config: Any, without: Tensor) -> None:
        """without: the tokens whose keys and values have no gradient, [rows, tokens]."""
        super().__init__(config=config)
        self._without = without[:, None, :, None]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return tuple(torch.where(self._without, x.detach(), x) for x in (key_states, value_states))  # type: ignore[return-value]


def odd_layers(config: Any) -> list[str]:
    """Kinds of layer whose past is more than keys and values. Empty: there are none, by the model's config."""
    layers = DynamicCache(config=config).layers
    return sorted(
        {type(x).__name__ for x in layers if type(x) not in (DynamicLayer, DynamicSlidingWindowLayer)}
    )


def windows(config: Any) -> tuple[int, ...]:
    """Widths of a model's sliding windows."""
    layers = DynamicCache(config=config).layers
    return tuple(sorted({int(x.sliding_window) for x in layers if isinstance(x, DynamicSlidingWindowLayer)}))

"""Keeps, drops or offloads the optimizer state of tensors that are not trained: it goes stale, and fills memory.

keep      they stay where they are, and are used again as they were left
drop      they are given up: the tensor begins from fresh moments, and from step 1 of the bias correction, when it is next
          selected (torch counts steps for each parameter)
offload   they wait in host memory and come back to the device; training is bit-identical to `keep`

A checkpoint holds what there is: after `drop` only the selected tensors' state; offloaded state as any other. torch loads
all state onto the device of its parameter; the selection that is restored next sends it away again.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

Policy = Literal["keep", "drop", "offload"]
HOST = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class StaleState:
    """Handles the optimizer state of frozen tensors by one policy.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2))
        >>> optimizer = torch.optim.AdamW([weight])
        >>> weight.grad = torch.ones(2)
        >>> optimizer.step()
        >>> _ = weight.requires_grad_(False)
        >>> StaleState("drop", optimizer).apply()
        >>> weight in optimizer.state
        False
    """

    policy: Policy
    optimizer: Any
    """torch's, or accelerate's wrapper of it."""

    def apply(self) -> None:
        """Apply the policy after each change of `requires_grad`, and at the end of training."""
        if self.policy == "keep":
            return
        for parameter in [p for group in self.optimizer.param_groups for p in group["params"]]:
            if parameter not in self.optimizer.state:
                continue
            if parameter.requires_grad:
                self._move(parameter, parameter.device)
            elif self.policy == "drop":
                del self.optimizer.state[parameter]
            else:
                self._move(parameter, HOST)

    def _move(self, parameter: Tensor, device: torch.device) -> None:
        state = self.optimizer.state[parameter]
        for name, value in state.items():
            # most of torch's AdamWs keep the step count on the host
            if isinstance(value, Tensor) and name != "step":
                state[name] = value.to(device)

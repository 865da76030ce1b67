"""Keeps every random generator, and a model's buffers, as they were around work that draws and counts on its own.

Training must draw the same dropout and the same order whether or not something was measured in between. The one file of
this folder that needs torch: five rooms use it, and none of them for the job.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def own_random(seed: int, devices: Sequence[int] = ()) -> Iterator[None]:
    """Within it random numbers come from `seed`; afterwards every generator stands where it stood.

    devices: CUDA indices whose generators are kept too.
    """
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def keep_buffers(model: nn.Module) -> Iterator[None]:
    """Afterwards every buffer of `model` is what it was: a pass beside training must not feed running statistics or counters."""
    kept = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, before in kept:
                module._buffers[name] = buffer  # a forward pass may have put another in its place
                buffer.copy_(before)

"""Keeps every random generator where it stood around work that draws numbers of its own.

Training must draw the same dropout and the same order whether or not something was measured in between. The one file of
this folder that needs torch: five rooms use it, and none of them for the job.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch


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

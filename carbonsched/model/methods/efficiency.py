"""Efficiency is what one step of a setting brings against a step of full fine-tuning, before a job has shown it itself.

A step of efficiency .5 lowers the held-out loss as far as half a full step does. The medians are read off docs/results.md and the
runs behind it (SmolLM2-135M on SciTLDR, rates tuned): which number of full steps ends at the loss that the setting ended at. One
model and few data sets, hence the wide bands; `carbonsched.plan.loss_curve` sets them right by what a job's own losses say.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

LEAST = 0.01
"""No setting that trains at all is taken to bring less."""


FALL, FALL_SD = 0.32, 0.15
"""What a fine-tuning takes off in the end, as a share of the loss before it, and its sd."""
BEND_STEPS, BEND = 4.0, 0.6
"""The fall after x full steps: a share 1 − (1 + x/BEND_STEPS)^−BEND of that."""
_LOSS = 3.0
"""Nats a token, where none is known."""


class Fall(NamedTuple):
    """What steps should take off the held-out loss.

    Example:
        >>> prior_fall(3.5, done=0, steps=100).nats > prior_fall(3.5, done=100, steps=100).nats
        True
    """

    nats: float
    sd: float
    """Relative."""


def prior_fall(loss: float | None, done: float, steps: float) -> Fall:
    """By so many full steps after `done` ones, from a loss alone; `carbonsched.plan.loss_curve` knows better where losses were seen."""
    known = loss if loss is not None and math.isfinite(loss) and loss > 0 else _LOSS

    def left(x: float) -> float:
        return float((1 + max(x, 0.0) / BEND_STEPS) ** -BEND)

    return Fall(FALL * known * (left(done) - left(done + max(steps, 0.0))), FALL_SD / FALL)


class Efficiency(NamedTuple):
    """Full steps that one step is worth, with its uncertainty.

    Example:
        >>> prior_efficiency("full", rho=1.0).median
        1.0
        >>> 0.6 < prior_efficiency("tokens", rho=0.5, share=0.25).median < 0.7
        True
    """

    median: float
    sd: float
    """Of its natural logarithm: 0.3 is ±35%."""


_TENSORS = ((0.0, 0.05), (1 / 6, 0.2), (1 / 3, 0.5), (1.0, 1.0))
"""(share of the way from the floor of ρ to 1, efficiency): `reach` on SmolLM2-135M, floor .4, at ρ .5 and .6."""
_TOKENS = ((0.0, 0.55), (1.0, 1.0))
"""(τ, efficiency): on SciTLDR at natural lengths .82 at τ = .32 and .70 at .16 (67 and 83 steps), about .7 at .32 (171 steps); on rows of 128 tokens
about .6 at .25 and .5 at .13. Adapters on fewer tokens are worth as much less than adapters on all (82 steps at τ = .30: .8 of them)."""
_LORA = {"all-linear": 0.95, "some": 0.5}
"""By targets. On all linear layers: 52 steps ended where .96 times as many full ones should (SciTLDR, natural lengths, two rates, one seed). On queries and values
alone .51 to .61 (SciTLDR, three seeds), .34 (Debian descriptions): data sets differ by more than seeds, hence the band."""
_DROPBP = ((1 / 3, 0.02), (0.5, 0.06), (1.0, 1.0))
KNOWN = frozenset(
    {
        "full",
        "tokens",
        "greentrainer",
        "greentrainer+tokens",
        "random",
        "fixed",
        "lora",
        "lora+tokens",
        "dropbp",
    }
)
"""Methods of which something was measured."""
_PROMPT_ONLY = 1 / 3
"""Of ρ: what a step through no token's gradient would cost, the forward pass."""
_EVERY_ADAPTER = 0.71
"""Of ρ: a step of adapters on all linear layers through every token (SmolLM2-135M)."""
_FLOOR = 0.4
"""Of ρ, where a model's own is not told."""
_MEASURED, _ADAPTERS, _GUESSED = 0.25, 0.35, 0.5
"""Sd of what few runs of one model have shown, of adapters by data set and targets, and of what none has shown."""


def prior_efficiency(
    method: str,
    rho: float,
    *,
    floor: float = _FLOOR,
    share: float | None = None,
    all_linear: bool = True,
) -> Efficiency:
    """What a step of `method` at ρ is worth. floor: the model's `rho_floor`; share: τ, None: every token. all_linear: whether adapters
    are on every linear layer, as they are by default.

    What is not finite counts as ρ = 1, a method that is not known as worth its FLOPs.
    """
    rho = min(max(rho, 0.0), 1.0) if math.isfinite(rho) else 1.0
    if share is None and method in ("tokens", "greentrainer+tokens", "lora+tokens"):
        every_token = _EVERY_ADAPTER if method == "lora+tokens" else 1.0
        share = max((rho - _PROMPT_ONLY) / (every_token - _PROMPT_ONLY), 0.0)
    tokens = 1.0 if share is None else _at(_TOKENS, share)
    match method:
        case "full":
            return Efficiency(1.0, 0.0)
        case "tokens":
            return Efficiency(tokens, 0.2 if share is not None and share < 1 else 0.0)
        case "greentrainer" | "random" | "fixed":
            tensors = _at(_TENSORS, _depth(rho, floor))
            if rho >= 1.0 and share is None:
                return Efficiency(1.0, 0.0)
            return Efficiency(max(tensors * tokens, LEAST), _MEASURED)
        case "greentrainer+tokens":
            every_tensor = _PROMPT_ONLY + (1 - _PROMPT_ONLY) * (1.0 if share is None else share)
            tensors = _at(_TENSORS, _depth(rho, floor, every_tensor))
            return Efficiency(max(tensors * tokens, LEAST), _MEASURED)
        case "lora" | "lora+tokens":
            return Efficiency(_LORA["all-linear" if all_linear else "some"] * tokens, _ADAPTERS)
        case "dropbp":
            return Efficiency(_at(_DROPBP, rho), _GUESSED)
        case _:
            return Efficiency(max(rho * tokens, LEAST), _GUESSED)


def _depth(rho: float, floor: float, ceiling: float = 1.0) -> float:
    """Share of the way from the floor of ρ to what every tensor costs."""
    floor = min(max(floor, 0.0), 0.99) if math.isfinite(floor) else _FLOOR
    return (rho - floor) / (ceiling - floor) if ceiling > floor else 1.0


def _at(points: Sequence[tuple[float, float]], x: float) -> float:
    """The line through the points, its ends held."""
    xs = [point[0] for point in points]
    if not x > xs[0]:
        return points[0][1]
    if x >= xs[-1]:
        return points[-1][1]
    (a, u), (b, v) = list(pairwise(points))[bisect_right(xs, x) - 1]
    return u + (v - u) * (x - a) / (b - a)

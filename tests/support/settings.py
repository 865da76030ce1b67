"""Small jobs that choose among settings under a budget and a deadline, and the best of all their plans."""

import itertools

import numpy as np

from carbonsched.plan.problem import EnergyModel, JobSegment, PlanPoint, Problem, Slot
from carbonsched.plan.setting_arrays import SettingArrays

FULL_J, FULL_S = 400.0, 4.0


def instance(seed: int, *, most: int = 5, flat: bool = False) -> Problem:
    """Two to `most` segments, full fine-tuning and tokens, each at the board's own clock and at one that is slower and takes fewer joules."""
    random = np.random.default_rng(seed)
    sizes = [int(random.integers(5, 20)) for _ in range(int(random.integers(2, most + 1)))]
    levels = [300.0 if flat else float(random.uniform(80, 500)) for _ in range(12)]
    points = [PlanPoint("full", 1.0, FULL_J, FULL_S, 1.0)]
    for rho, share, least in ((0.5, 0.2, 0.3), (0.7, 0.6, 0.6)):
        joules, seconds = FULL_J * rho * random.uniform(0.95, 1.1), FULL_S * rho * random.uniform(0.9, 1.3)
        worth = float(random.uniform(least, 1.0))
        points.append(PlanPoint("tokens", rho, float(joules), float(seconds), worth, share))
    slower = [
        PlanPoint(p.method, p.rho, 0.8 * p.joules, 1.3 * p.seconds, p.worth, p.share, clocks=1400)
        for p in points
    ]
    full_s = sum(sizes) * FULL_S
    length_s = full_s / 8
    return Problem(
        segments=tuple(JobSegment(k, steps, ((0.4, 0.1), (1.0, 1.0))) for k, steps in enumerate(sizes)),
        slots=tuple(Slot(i * length_s, (i + 1) * length_s, g, 600.0) for i, g in enumerate(levels)),
        energy=EnergyModel(FULL_J, 0.0, FULL_S, 0.0, overhead_j=float(random.uniform(0, 400))),
        budget_g=sum(sizes) * FULL_J * 300 / 3.6e6 * float(random.uniform(0.5, 1.1)),
        rho_min=0.4,
        rho_max=1.0,
        deadline_s=full_s * float(random.uniform(0.6, 1.4)),
        points=(*points, *slower),
        may_end_early=bool(seed % 2),
    )


def best_of_all(arrays: SettingArrays, budget_g: float) -> float | None:
    """The gain of the best plan without waits, by trying all; None where none fits. What is left out lies at the end."""
    found = None
    for numbers in itertools.product(range(len(arrays.choices)), repeat=arrays.n):
        left_out = [arrays.point(number) is None for number in numbers]
        if left_out[0] or left_out != sorted(left_out):
            continue
        rho = np.array(numbers, dtype=float)
        gain = float(arrays.gains(rho).sum())
        if found is not None and gain <= found:
            continue
        schedule = arrays.schedule(rho)
        if schedule.spend_g <= budget_g and schedule.finish_s <= arrays.latest_s[-1]:
            found = gain
    return found

"""Shows the progress of a benchmark and its remaining time, by the work of its runs and not by their number."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from carbonsched.text import duration

_WIDTH = 24


@dataclass(slots=True)
class Progress:
    """The progress of this process's runs of one benchmark.

    Example:
        >>> progress = Progress(weights={"full": 2.0, "lora": 1.0}, clock=iter([0.0, 60.0]).__next__)
        >>> progress.add("full")
        >>> progress.line(done=["full"], due=["lora"])
        '[████████████████········]  67%, 1 of 2 runs, about 30s left'
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    """Work of a run by variant name, in any unit; absent: 1."""
    clock: Callable[[], float] = time.monotonic
    _began: float = 0.0
    _worked: float = 0.0

    def __post_init__(self) -> None:
        self._began = self.clock()

    def add(self, variant: str) -> None:
        """This process has finished a run."""
        self._worked += self.weights.get(variant, 1.0)

    def line(self, done: list[str], due: list[str]) -> str:
        """done: variants of all finished runs, including earlier processes'; due: of the runs known to be left."""
        ready, left = (sum(self.weights.get(name, 1.0) for name in names) for names in (done, due))
        share = ready / (ready + left) if ready + left else 1.0
        bar = "█" * int(share * _WIDTH)
        line = f"[{bar:·<{_WIDTH}}] {share:4.0%}, {len(done)} of {len(done) + len(due)} runs"
        if not self._worked or not left:
            return line
        return f"{line}, about {duration((self.clock() - self._began) / self._worked * left)} left"

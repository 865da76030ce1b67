"""What every grid feed offers: one poll, which answers readings and, where the provider has one, a forecast."""

from dataclasses import dataclass
from typing import Protocol

from carbonsched.model.grid import Basis, Forecast, Reading


@dataclass(frozen=True, slots=True)
class Answer:
    """One poll. Readings are ascending; the last one may reach into the future."""

    readings: tuple[Reading, ...]
    forecast: Forecast | None = None


class Feed(Protocol):
    name: str
    zone: str
    basis: Basis
    every_s: float
    max_age_s: float
    local: bool
    """Answers from this box: asked even while feeds before it are healthy, so that it also knows times they do not."""

    def poll(self) -> Answer:
        """Ask the provider. Raises FeedError in one line, secrets redacted."""

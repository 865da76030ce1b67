"""Keeps the forecasts of a provider as they were issued: what a daemon has to remember to know how far it may trust them.

No NumPy here: a daemon at rest keeps this and does not plan. `ForecastHistory.of` turns it into arrays for the planner.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from carbonsched.model.grid import Forecast


@dataclass(slots=True)
class ForecastArchive:
    """Forecasts of the last four weeks, at most one per hour of grid time.

    Example::

        archive = ForecastArchive()
        archive.add(clock.now(), chain.forecast())  # at every poll
    """

    day_s: float = 86_400.0
    """Wall seconds of a grid day: fewer in a time-compressed replay."""
    days: float = 29.0
    rows: list[tuple[datetime, Forecast]] = field(default_factory=list)
    """(when it was received, the forecast), ascending."""

    def add(self, now: datetime, forecast: Forecast | None) -> None:
        """Add the forecast that holds at `now`; cheap to call at every poll. The same forecast is not added twice.

        Rows that lie ahead are of a clock that was set back since: nothing would be added until it has caught up.
        """
        del self.rows[bisect_right(self.rows, now, key=lambda row: row[0]) :]
        if forecast is None or not forecast.points:
            return
        if self.rows:
            at, last = self.rows[-1]
            if now - at < timedelta(seconds=self.day_s / 24) or forecast.issued_at == last.issued_at:
                return
        self.rows.append((now, forecast))
        first = now - timedelta(seconds=self.days * self.day_s)
        del self.rows[: bisect_right(self.rows, first, key=lambda row: row[0])]

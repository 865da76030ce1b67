"""The forecasts of a provider as they were issued: what a daemon has to remember to know how far it may trust them.

No NumPy here: a daemon at rest keeps this and does not plan. `said.heard` lays it out for the planner.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from carbonsched.model.grid import Forecast


@dataclass(slots=True)
class ForecastArchive:
    """Those of the last four weeks, one an hour of grid time at most."""

    day_s: float = 86_400.0
    """Wall seconds of a grid day: fewer in a time-compressed replay."""
    days: float = 29.0
    rows: list[tuple[datetime, Forecast]] = field(default_factory=list)
    """(when it was heard, the forecast), ascending."""

    def add(self, now: datetime, forecast: Forecast | None) -> None:
        """Remember what is said at `now`; cheap to call at every poll. What says nothing new is not kept twice."""
        if forecast is None or not forecast.points:
            return
        if self.rows:
            at, last = self.rows[-1]
            if now - at < timedelta(seconds=self.day_s / 24) or forecast.issued_at == last.issued_at:
                return
        self.rows.append((now, forecast))
        first = now - timedelta(seconds=self.days * self.day_s)
        del self.rows[: bisect_right(self.rows, first, key=lambda row: row[0])]

"""Says which PUE holds at a time, where the config states several by the hour of the day and the month. Pure.

PUE is the energy of a facility over that of its computers (ISO/IEC 30134-2). It follows the weather and the hour: a figure for
the year is right for a year's total and for no hour of it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final

from pydantic import Field

from carbonsched.model import allowed_hours
from carbonsched.model.base import Doc

MOST: Final = 10.0
"""Beyond any facility that was ever reported."""
PueValue = Annotated[float, Field(ge=1, le=MOST)]
Stated = tuple[float, str]
"""(PUE, where it comes from)."""
_DAY: Final = timedelta(days=1)


class PueHours(Doc):
    """`[[pue_hours]]`: the PUE of some hours, some months, or both.

    Example:
        >>> PueHours(hours=["08:00-20:00"], months=[6, 7, 8], timezone="Europe/Berlin", pue=1.42, source="BMS 2025").pue
        1.42
    """

    pue: PueValue
    source: Annotated[str, Field(min_length=1, max_length=500)]
    """Where it comes from; stands in every row of these hours."""
    hours: allowed_hours.HourSpans = ()
    """Spans as `22:00-06:00`; none: all day."""
    months: tuple[Annotated[int, Field(ge=1, le=12)], ...] = ()
    """1 is January; none: all year. A span over midnight belongs to the month of each of its moments."""
    timezone: allowed_hours.ZoneName = "UTC"

    def holds(self, at: datetime) -> bool:
        """Whether it is the PUE of that moment."""
        if self.months and at.astimezone(allowed_hours.zone(self.timezone)).month not in self.months:
            return False
        found = allowed_hours.stretches(self.hours, self.timezone, at, at + timedelta(microseconds=1))
        return any(start <= at < end for start, end in found)

    def borders(self, start: datetime, end: datetime) -> set[datetime]:
        """Moments inside (start, end) at which it may begin or cease to hold."""
        found = {
            t for stretch in allowed_hours.stretches(self.hours, self.timezone, start, end) for t in stretch
        }
        if self.months:
            local = allowed_hours.zone(self.timezone)
            day = start.astimezone(local).replace(hour=0, minute=0, second=0, microsecond=0)
            while day < end:
                if day.day == 1:
                    found.add(day.astimezone(start.tzinfo))
                day += _DAY
        return {t for t in found if start < t < end}


def pue_at(hours: Sequence[PueHours], otherwise: Stated, at: datetime) -> Stated:
    """Of the first that holds; `otherwise` where none does.

    Example:
        >>> from datetime import UTC
        >>> summer = PueHours(months=[7], pue=1.4, source="BMS 2025")
        >>> pue_at([summer], (1.2, "annual report"), datetime(2026, 7, 3, tzinfo=UTC))
        (1.4, 'BMS 2025')
    """
    return next(((each.pue, each.source) for each in hours if each.holds(at)), otherwise)


def pue_changes(hours: Sequence[PueHours], start: datetime, end: datetime) -> set[datetime]:
    """Moments inside (start, end) at which another PUE may hold."""
    return set[datetime]().union(*(each.borders(start, end) for each in hours))

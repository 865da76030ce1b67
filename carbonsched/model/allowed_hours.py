"""Turns hours of the day in which a job may train, `22:00-06:00` in a time zone, into stretches of UTC.

Clock changes are the zone's: a stretch that spans one is an hour shorter or longer, a border that does not exist on
that day (the hour skipped in spring) falls where the clocks jump to.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)\s*-\s*(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))")
_DAY = 24 * 60
_LONGEST_ZONE = 100
"""Characters of the name of a time zone; those of the world have 32 at most."""

Stretch = tuple[datetime, datetime]
"""[start, end) in UTC."""


def span(text: str) -> tuple[int, int]:
    """(first, last) minute of the day of `HH:MM-HH:MM`; the last may lie on the next day. Raises ValueError."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a span of hours; write it like 22:00-06:00")
    h, m, *rest = (int(part) for part in found.groups() if part is not None)
    first, last = 60 * h + m, 60 * rest[0] + rest[1]
    if first == last:
        raise ValueError(f"{text!r} is empty; for the whole day leave it out")
    return first, last if last > first else last + _DAY


def zone(name: str) -> ZoneInfo:
    """Raises ValueError for a name that the box's time zone data do not know."""
    try:
        # each part of a name is looked up as a package: of a long one that recurses without end
        if len(name) > _LONGEST_ZONE:
            raise ValueError(name)  # noqa: TRY301
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as e:
        raise ValueError(
            f"{name[:_LONGEST_ZONE]!r} is no time zone; write it like Europe/Berlin or UTC"
        ) from e


def stretches(spans: Sequence[str], timezone: str, start: datetime, end: datetime) -> tuple[Stretch, ...]:
    """The allowed stretches that touch [start, end), ascending, merged where they meet; cut to neither border.

    No spans: the whole of [start, end). Times are aware and in UTC.
    """
    if not spans:
        return ((start, end),)
    local = zone(timezone)
    day, last_day = start.astimezone(local).date() - timedelta(days=1), end.astimezone(local).date()
    found: list[Stretch] = []
    while day <= last_day:
        for first, last in map(span, spans):
            begins, ends = (_at(day + timedelta(days=m // _DAY), m % _DAY, local) for m in (first, last))
            if ends > start and begins < end and ends > begins:
                found.append((begins, ends))
        day += timedelta(days=1)
    merged: list[Stretch] = []
    for begins, ends in sorted(found):
        if merged and begins <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], ends))
        else:
            merged.append((begins, ends))
    return tuple(merged)


def _at(day: date, minute: int, local: ZoneInfo) -> datetime:
    return datetime.combine(day, time(minute // 60, minute % 60), local).astimezone(UTC)


def _checked_spans(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        span(text)
    return texts


def _checked_zone(name: str) -> str:
    zone(name)
    return name


HourSpans = Annotated[tuple[str, ...], AfterValidator(_checked_spans)]
"""A key of a document: spans as `HH:MM-HH:MM`."""
ZoneName = Annotated[str, AfterValidator(_checked_zone)]
"""A key of a document: a time zone of the box's data."""

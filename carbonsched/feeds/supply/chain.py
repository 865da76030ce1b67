"""Makes one supply of its feeds: what it is at a time, for how long it may be reckoned with, and what `grid` shows of it."""

from datetime import datetime, timedelta

from carbonsched.feeds.value_chain import ValueChain
from carbonsched.model.grid import SupplyReading, SupplyUnit, SupplyView


class SupplyChain(ValueChain[SupplyReading]):
    """The feeds of the site's own supply. Thread-safe, as every ValueChain.

    Example::

        supply = build_supply(config.supply, site)
        supply.poll_due()
        now = supply.reading_at(datetime.now(UTC))
    """

    def holds_until(self, reading: SupplyReading) -> datetime:
        """Until when it counts if nothing newer comes."""
        if reading.source.kind.constant:
            return reading.end
        now = self._clock.now()
        with self._lock:
            ages = [slot.feed.max_age_s for slot in self._slots if slot.known(now) == reading]
        # else it is held already, and ends where it is held to
        return reading.end + timedelta(seconds=max(ages, default=0.0))

    def view(self, box_kw: float | None) -> SupplyView:
        """What `carbonsched grid` shows. box_kw: what the box draws now, PUE included; None: not known."""
        reading, feeds = self.reading_at(self._clock.now()), self.status()
        if reading is None:
            errors = "; ".join(f"{s.name}: {s.error or s.state}" for s in feeds)
            nothing = dict.fromkeys(
                ("share", "kw", "g_per_kwh", "provider", "kind", "start", "end", "fetched_at")
            )
            return SupplyView(**nothing, reason=f"no feed knows the supply now ({errors})", feeds=feeds)
        source = reading.source
        return SupplyView(
            share=share_of(reading, box_kw),
            kw=reading.amount if reading.unit is SupplyUnit.KW else None,
            g_per_kwh=reading.g_per_kwh,
            provider=source.provider,
            kind=source.kind,
            start=reading.start,
            end=reading.end,
            fetched_at=source.fetched_at,
            time_compression=source.time_compression,
            note=source.note,
            feeds=feeds,
        )


def share_of(reading: SupplyReading, box_kw: float | None) -> float | None:
    """What share of the box's energy it is, at so much power; None where that is not known."""
    if reading.unit is SupplyUnit.SHARE:
        return reading.amount
    if box_kw is None:
        return None
    return reading.amount / box_kw if reading.amount < box_kw else float(reading.amount > 0)

"""Finds the intensities that past rows should count with now. Pure: from how the rows were charged and what the feeds know now.

A row is settled by a revision of its own provider; by a more trusted feed, if it was charged with a held value, a constant or a less
trusted feed; and by any value, if none was known. It is never settled by a value of another place or basis, nor by a less trusted feed:
what a daemon forgot in a restart must not undo what it knew.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from carbonsched.ledger.rows import maybe_micros, micros, stamp
from carbonsched.ledger.settlements import Charged, Settled, Settlement, Stretch
from carbonsched.model.grid import HELD, Kind, Reading

_CONSTANT, _HELD, _TOLD = 1, 2, 3
_CERTAINTY: Final = {Kind.FORECAST: 0, Kind.ESTIMATED: 1, Kind.ACTUAL: 2}


@dataclass(frozen=True, slots=True)
class Known:
    """What the feeds answer now for a past stretch.

    Example::

        Known(micros(reading.start), micros(reading.end), reading)
    """

    start_us: int
    end_us: int
    reading: Reading


def revised(
    rows: Iterable[Stretch],
    known: Sequence[Known],
    settled: Settled,
    ranks: Mapping[str, int],
    place: Collection[str] = (),
) -> list[Settlement]:
    """Return new settlements, ascending, one for each stretch that differs. known: ascending and disjoint, as far back as may still be
    settled. ranks: feed → 0 for the most trusted. place: the feeds' names for the box's zone; compared as well as a value's own zone."""
    found: list[Settlement] = []
    for start, end, here, reading in _pieces(list(rows), known, settled.edges()):
        new = _verdict(start, end, here, settled.at(start), reading, ranks, place)
        if new is None:
            continue
        last = found[-1] if found else None
        if (
            last is not None
            and last.end_us == start
            and replace(new, start_us=last.start_us) == replace(last, end_us=end)
        ):
            found[-1] = replace(last, end_us=end)
        else:
            found.append(new)
    return found


def _pieces(
    rows: list[Stretch], known: Sequence[Known], more_edges: Iterable[int]
) -> Iterator[tuple[int, int, Counter[Charged], Reading]]:
    """(start, end, how rows were charged there, what is known now) for the smallest stretches in which both are constant."""
    steps: dict[int, list[tuple[int, Charged]]] = {}
    for row in rows:
        if row.start_us < row.end_us:
            steps.setdefault(row.start_us, []).append((1, row.charged))
            steps.setdefault(row.end_us, []).append((-1, row.charged))
    edges = sorted({*steps, *more_edges, *(us for one in known for us in (one.start_us, one.end_us))})
    here: Counter[Charged] = Counter()
    i = 0
    for start, end in pairwise(edges):
        for change, charged in steps.get(start, ()):
            here[charged] += change
        while i < len(known) and known[i].end_us <= start:
            i += 1
        present = +here
        if present and i < len(known) and known[i].start_us <= start:
            yield start, end, present, known[i].reading


def _verdict(
    start: int,
    end: int,
    here: Counter[Charged],
    before: Settlement | None,
    reading: Reading,
    ranks: Mapping[str, int],
    place: Collection[str],
) -> Settlement | None:
    """What settles a stretch in which nothing changes; None: nothing to settle, or the new value is no better."""
    new = _charged(reading)
    zones = frozenset({*place, reading.source.zone})
    if any(one.g_per_kwh is not None and (one.zone not in zones or one.basis != new.basis) for one in here):
        return None
    replaces = before is not None and before.zone in zones and before.basis == new.basis
    held = [before.charged] if before is not None and replaces else list(here)
    if not all(_may_replace(one, new, ranks) for one in held):
        return None
    differing = [one for one in held if not _agree(one, new)]
    if not differing:
        return None
    was = min(differing, key=lambda one: (one.provider or "", one.g_per_kwh or 0.0))
    source = reading.source
    if source.basis is None:
        return None
    issued_us = maybe_micros(source.issued_at)
    return Settlement(
        start_us=start,
        end_us=end,
        g_per_kwh=reading.g_per_kwh,
        provider=source.provider,
        zone=source.zone,
        zones=tuple(sorted(zones)),
        basis=source.basis,
        kind=source.kind,
        note=source.note,
        issued_at=None if issued_us is None else stamp(issued_us),
        fetched_at=stamp(micros(source.fetched_at)),
        body_sha256=source.body_sha256,
        was=(was.g_per_kwh, was.provider, was.kind),
        replayed=new.replayed,
    )


def _charged(reading: Reading) -> Charged:
    source, grid_start = reading.source, maybe_micros(reading.grid_start)
    replayed = None if grid_start is None else (micros(reading.start), grid_start)
    return Charged(
        reading.g_per_kwh, source.provider, source.zone, source.basis, source.kind, source.note, replayed
    )


def _agree(old: Charged, new: Charged) -> bool:
    if old.g_per_kwh is None or new.g_per_kwh is None:
        return old.g_per_kwh is new.g_per_kwh
    return math.isclose(old.g_per_kwh, new.g_per_kwh, rel_tol=1e-9, abs_tol=1e-12)


def _may_replace(old: Charged, new: Charged, ranks: Mapping[str, int]) -> bool:
    """Whether the new value is better, or a later one of the same provider."""
    if old.g_per_kwh is None:
        return True
    if old.replayed is not None and new.replayed is not None and old.replayed != new.replayed:
        return False  # a replay that was restarted means another hour
    worth = _worth(old), _worth(new)
    if worth[0] != worth[1]:
        return worth[1] > worth[0]
    if old.provider == new.provider:
        return _certainty(new) >= _certainty(old)
    last = len(ranks)
    return ranks.get(new.provider or "", last) < ranks.get(old.provider or "", -1)


def _worth(one: Charged) -> int:
    if one.kind is not None and one.kind.constant:
        return _CONSTANT
    return _HELD if one.note.endswith(HELD) else _TOLD


def _certainty(one: Charged) -> int:
    return _CERTAINTY.get(one.kind, 0) if one.kind is not None else 0

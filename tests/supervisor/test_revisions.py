"""Which settlements there are to write, against an oracle that walks second by second."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.provider import T0

from carbonsched.feeds.value_chain import HELD
from carbonsched.ledger.rows import micros
from carbonsched.ledger.settlements import Charged, Settled, Settlement, Stretch
from carbonsched.model.grid import Basis, Kind, Reading, Source
from carbonsched.supervisor.revisions import Known, revised

LONG = 20
ORIGIN = micros(T0)
RANKS = {"first": 0, "second": 1, "constant": 2}
LIFECYCLE, DIRECT = Basis.AVERAGE_LIFECYCLE, Basis.AVERAGE_DIRECT


def us(second: int) -> int:
    return ORIGIN + second * 1_000_000


def charged(
    g: float | None, provider: str = "first", kind: Kind = Kind.ACTUAL, note: str = "", zone: str = "XX"
) -> Charged:
    if g is None:
        return Charged()
    return Charged(g, provider, zone, DIRECT, kind, note)


def reading(one: Charged, basis: Basis = DIRECT) -> Reading:
    assert one.g_per_kwh is not None
    assert one.kind is not None
    source = Source(
        provider=one.provider or "",
        zone=one.zone or "",
        basis=basis,
        kind=one.kind,
        fetched_at=T0,
        note=one.note,
    )
    return Reading(start=T0, end=T0 + timedelta(days=1), g_per_kwh=one.g_per_kwh, source=source)


VALUES = st.one_of(
    st.builds(
        charged,
        st.sampled_from([100.0, 200.0]),
        st.sampled_from(["first", "second", "gone"]),
        st.sampled_from([Kind.ACTUAL, Kind.ESTIMATED, Kind.FORECAST]),
        st.sampled_from(["", "", HELD, f"a label; {HELD}"]),
        st.sampled_from(["XX", "XX", "XX", "YY"]),
    ),
    st.builds(
        charged,
        st.sampled_from([100.0, 300.0]),
        st.just("constant"),
        st.sampled_from([Kind.STATIC, Kind.FALLBACK]),
    ),
)
ROWS = st.lists(
    st.tuples(st.integers(0, LONG), st.integers(0, 8), st.just(charged(None)) | VALUES).map(
        lambda row: Stretch(us(row[0]), us(row[0] + row[1]), row[2])
    ),
    max_size=6,
)


@st.composite
def knowns(draw: st.DrawFn) -> list[Known]:
    edges = sorted(draw(st.sets(st.integers(0, LONG), max_size=6)))
    return [Known(us(a), us(b), reading(draw(VALUES))) for a, b in pairwise(edges) if draw(st.booleans())]


def test_another_name_of_the_same_place_settles_and_another_place_does_not() -> None:
    rows = [Stretch(us(0), us(10), charged(300, "constant", Kind.FALLBACK))]
    known = [Known(us(0), us(10), reading(charged(200, zone="X-1")))]
    (one,) = revised(rows, known, Settled.of(()), RANKS, place=["XX", "X-1"])
    assert (one.zone, one.zones) == ("X-1", ("X-1", "XX"))
    assert [one.holds_for({"g_per_kwh": 300.0, "zone": zone, "basis": DIRECT}) for zone in ("XX", "YY")] == [
        True,
        False,
    ]
    assert revised(rows, known, Settled.of([one]), RANKS, place=["XX", "X-1"]) == []
    assert revised(rows, known, Settled.of(()), RANKS, place=["YY", "X-1"]) == []


def better(old: Charged, new: Charged) -> bool:
    """The rule once more, in other words."""
    if old.g_per_kwh is None:
        return True
    if (old.zone, old.basis) != (new.zone, new.basis):
        return False

    def level(one: Charged) -> str:
        if one.kind in (Kind.STATIC, Kind.FALLBACK):
            return "a constant"
        return "held" if "held" in one.note else "told"

    ladder = ["a constant", "held", "told"]
    if level(old) != level(new):
        return ladder.index(level(new)) > ladder.index(level(old))
    if old.provider == new.provider:
        order = [Kind.STATIC, Kind.FALLBACK, Kind.FORECAST, Kind.ESTIMATED, Kind.ACTUAL]
        assert old.kind is not None
        assert new.kind is not None
        return level(new) == "a constant" or order.index(new.kind) >= order.index(old.kind)
    return (old.provider, new.provider) == ("second", "first")


@given(ROWS, knowns(), st.lists(st.tuples(ROWS, knowns()), max_size=2))
def test_what_differs_and_is_better_is_settled_once_and_nothing_else_is(
    rows: list[Stretch], known: list[Known], before: list[tuple[list[Stretch], list[Known]]]
) -> None:
    entries: list[Settlement] = []
    for earlier_rows, earlier_known in before:
        entries += revised([*rows, *earlier_rows], earlier_known, Settled.of(entries), RANKS)
    old = Settled.of(entries)
    found = revised(rows, known, old, RANKS)
    new = Settled.of([*entries, *found])
    for a, b in pairwise(found):
        assert a.end_us <= b.start_us
        assert a.end_us < b.start_us or replace(a, start_us=0, end_us=0) != replace(b, start_us=0, end_us=0)
    for second in range(LONG + 10):
        at = us(second)
        here = [row.charged for row in rows if row.start_us <= at < row.end_us]
        told = next((one.reading for one in known if one.start_us <= at < one.end_us), None)
        written = [one for one in found if one.start_us <= at < one.end_us]
        assert len(written) <= 1
        if told is None or not here:
            assert not written
            continue
        answer = charged(
            told.g_per_kwh, told.source.provider, told.source.kind, told.source.note, told.source.zone
        )
        settled = old.at(at)
        held = here
        if settled is not None and settled.zone == answer.zone:
            held = [settled.charged]
        all_better = all(better(one, answer) for one in held) and all(
            one.g_per_kwh is None or one.zone == answer.zone for one in here
        )
        differs = any(one.g_per_kwh != answer.g_per_kwh for one in held)
        assert bool(written) is (all_better and differs)
        for one in written:
            assert (one.g_per_kwh, one.zone, one.basis) == (answer.g_per_kwh, answer.zone, answer.basis)
            assert one.was in [(each.g_per_kwh, each.provider, each.kind) for each in held]
            assert one.was[0] != one.g_per_kwh
            assert new.at(at) == one
    assert revised(rows, known, new, RANKS) == [], "a second look finds nothing, nor does a restarted daemon"


@pytest.mark.parametrize(
    ("old", "new", "settles"),
    [
        (charged(100, kind=Kind.FORECAST), charged(120), True),
        (charged(100), charged(100.0), False),
        (charged(100), charged(120), True),
        (charged(100), charged(120, kind=Kind.FORECAST), False),
        (charged(100, "first", Kind.ESTIMATED, HELD), charged(120), True),
        (charged(100, "constant", Kind.FALLBACK), charged(120, "second"), True),
        (charged(100, "constant", Kind.STATIC), charged(120, "second", Kind.FORECAST), True),
        (charged(100, "second"), charged(120, "first", Kind.ESTIMATED), True),
        (charged(100, "first"), charged(120, "second"), False),
        (charged(100, "gone"), charged(120, "first"), False),
        (charged(100, "second"), charged(300, "constant", Kind.FALLBACK), False),
        (charged(100), charged(120, zone="YY"), False),
        (charged(None), charged(120, zone="YY"), True),
        (charged(None), charged(300, "constant", Kind.FALLBACK), True),
    ],
    ids=[
        "a forecast came true",
        "the same value",
        "a revision",
        "no forecast instead of what was measured",
        "held, then told",
        "stood in, then told",
        "stated, then told",
        "a more trusted feed came back",
        "a less trusted feed",
        "of a feed that is no longer in the chain",
        "a constant after a restart",
        "another zone",
        "unknown, then known",
        "unknown, then a constant",
    ],
)
def test_a_row_is_settled_by_what_is_better(old: Charged, new: Charged, settles: bool) -> None:
    rows, known = [Stretch(us(0), us(10), old)], [Known(us(2), us(30), reading(new))]
    found = revised(rows, known, Settled(), RANKS)
    assert [(one.start_us, one.end_us, one.g_per_kwh) for one in found] == (
        [(us(2), us(10), new.g_per_kwh)] if settles else []
    )


def test_another_basis_never_settles() -> None:
    rows = [Stretch(us(0), us(10), charged(100))]
    assert revised(rows, [Known(us(0), us(10), reading(charged(120), LIFECYCLE))], Settled(), RANKS) == []


def test_a_replay_that_was_begun_anew_settles_nothing() -> None:
    replayed = reading(charged(120)).model_copy(update={"grid_start": T0 - timedelta(days=900)})
    known = [Known(us(0), us(10), replayed)]
    for grid_start, settles in ((T0 - timedelta(days=900), True), (T0 - timedelta(days=800), False)):
        old = replace(charged(100), replayed=(micros(replayed.start), micros(grid_start)))
        assert bool(revised([Stretch(us(0), us(10), old)], known, Settled(), RANKS)) is settles


def test_rows_of_a_stretch_have_one_entry_however_many_they_are() -> None:
    rows = [Stretch(us(i), us(i + 1), charged(100)) for i in range(LONG)]
    [one] = revised(rows, [Known(us(0), us(LONG), reading(charged(120)))], Settled(), RANKS)
    assert (one.start_us, one.end_us) == (us(0), us(LONG))

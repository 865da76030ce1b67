"""What the site's own supply gave of every piece of energy: never more than it gave, and no row more than before."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manual_clock import ManualClock
from support.roof import Roof

from carbonsched.config import Config
from carbonsched.feeds.chain import Chain
from carbonsched.feeds.static import StaticFeed
from carbonsched.feeds.supply.base import supply_gates
from carbonsched.feeds.supply.chain import SupplyChain
from carbonsched.feeds.zone import Zone
from carbonsched.ledger.rows import canonical, figures_problem, flatten
from carbonsched.model.energy import EnergyDelta, EnergyMethod, Interval
from carbonsched.model.grid import Basis, Kind, Source, SupplyReading, SupplyUnit
from carbonsched.supervisor.metering import Metering
from carbonsched.supervisor.pue_watch import PueWatch
from carbonsched.supervisor.supply_shares import SupplyShares

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
KWS_MJ = 1e6
CONFIG = Config.parse(
    {"zone": {"name": "XX"}, "pue": 1.25, "feeds": [{"provider": "static", "country": "DEU"}]}
)


def said(start: float, end: float, amount: float, unit: SupplyUnit = SupplyUnit.KW) -> SupplyReading:
    source = Source(provider="roof", zone="XX", kind=Kind.ACTUAL, fetched_at=T0, note=f"from {start:g}")
    return SupplyReading(
        start=T0 + start * SECOND,
        end=T0 + end * SECOND,
        amount=amount,
        unit=unit,
        g_per_kwh=40,
        source=source,
    )


def metering(roof: Roof | None, clock: ManualClock) -> Metering:
    feed = StaticFeed(clock, name="bill", zone="XX", basis=Basis.AVERAGE_LIFECYCLE, g_per_kwh=400.0, note="")
    chain = Chain([feed], Zone(name="XX"), clock)
    supply = None if roof is None else SupplyChain([roof], clock, supply_gates())
    for each in (chain, supply):
        if each is not None:
            each.poll_due()
    pue = PueWatch(None, lambda: CONFIG, clock)
    return Metering(lambda: CONFIG, chain, pue, SupplyShares(supply))


def used(
    device: str, start: float, end: float, energy_mj: int | None, *, bridged: bool = False
) -> EnergyDelta:
    return EnergyDelta(
        device=device,
        start=T0 + start * SECOND,
        end=T0 + end * SECOND,
        energy_mj=energy_mj,
        power_w=None,
        method=EnergyMethod.COUNTER if energy_mj is not None else EnergyMethod.UNAVAILABLE,
        counter_epoch="boot:0",
        reason=None if energy_mj is not None else "no counter",
        bridged=bridged,
    )


def charged(meter: Metering, *ticks: list[EnergyDelta]) -> list[Interval]:
    rows = [row for tick in ticks for row in meter.charge(tick, [])[1]] + meter.flush()
    for row in rows:
        assert figures_problem(flatten(row)) is None
    return rows


def taken_mj(rows: list[Interval]) -> float:
    """Of the supply, PUE included."""
    return sum(
        row.supply.share * (row.delta.energy_mj or 0) * row.pue for row in rows if row.supply is not None
    )


@given(
    powers=st.lists(st.floats(0, 3), min_size=1, max_size=4),
    uses=st.lists(
        st.tuples(
            *[st.one_of(st.sampled_from([None, 3_000_000]), st.integers(0, 3_000_000)) for _ in range(3)]
        ),
        min_size=1,
        max_size=20,
    ),
    offsets=st.tuples(*[st.floats(0, 0.9) for _ in range(3)]),
    late=st.integers(0, 4),
)
@settings(max_examples=150, deadline=None)
def test_devices_never_take_more_of_a_supply_than_it_gave(
    powers: list[float], uses: list[tuple[int | None, ...]], offsets: tuple[float, ...], late: int
) -> None:
    """Three devices that are read at different moments, the third now and then only; some cannot be read."""
    roof = Roof([said(i * 3, i * 3 + 3, kw) for i, kw in enumerate(powers)])
    clock = ManualClock(T0 + timedelta(hours=1))
    meter = metering(roof, clock)
    ticks, waits = [], 0
    for i, each in enumerate(uses):
        tick = [used(f"D{d}", i + offsets[d], i + 1 + offsets[d], each[d]) for d in (0, 1)]
        waits += 1
        if waits > late:
            tick.append(used("D2", i + 1 - waits + offsets[2], i + 1 + offsets[2], each[2]))
            waits = 0
        ticks.append(tick)
    rows = charged(meter, *ticks)
    metered = sum(delta.energy_mj or 0 for tick in ticks for delta in tick)
    assert sum(row.delta.energy_mj or 0 for row in rows) == metered
    # the last power is held for 20 s
    ends = [*(i * 3 + 3.0 for i in range(len(powers) - 1)), len(powers) * 3 + 20.0]
    for i, kw in enumerate(powers):
        mine = [
            row
            for row in rows
            if row.supply is not None and f"from {i * 3}" in row.supply.source.note.split(";")
        ]
        assert taken_mj(mine) <= kw * (ends[i] - i * 3) * KWS_MJ * (1 + 1e-9) + 1e-3


def test_all_devices_have_one_share_of_a_power_and_it_breaks_no_row() -> None:
    meter = metering(Roof([said(0, 60, 0.5)]), ManualClock(T0 + timedelta(hours=1)))
    ticks = [[used("A", i, i + 1, 300_000 + i * 1000), used("B", i, i + 1, 500_000)] for i in range(10)]
    rows = charged(meter, *ticks)
    assert [row.delta.device for row in rows] == ["A", "B", "A", "B"], (
        "each first row at once, then one in ten seconds"
    )
    assert taken_mj(rows) == pytest.approx(0.5 * 10 * KWS_MJ)
    for row in rows:
        assert row.supply is not None
        assert row.supply.share == pytest.approx(0.5 / (0.80475 * 1.25), rel=0.01)
        share = row.supply.share
        assert row.on_site_grams == pytest.approx((row.grams or 0) * ((1 - share) + share * 0.1))


def test_a_power_above_the_boxs_own_is_all_of_it_and_no_more() -> None:
    meter = metering(Roof([said(0, 60, 5.0)]), ManualClock(T0 + timedelta(hours=1)))
    [row] = charged(meter, [used("A", 0, 5, 1_000_000)])
    assert row.supply is not None
    assert row.supply.share == 1.0
    assert row.on_site_grams == pytest.approx((row.grams or 0) * 0.1)


def test_a_share_is_of_everything_and_a_new_one_begins_a_row() -> None:
    roof = Roof([said(0, 5, 0.25, SupplyUnit.SHARE), said(5, 10, 0.75, SupplyUnit.SHARE)])
    meter = metering(roof, ManualClock(T0 + timedelta(hours=1)))
    rows = charged(meter, [used("A", 0, 4, 400_000)], [used("A", 4, 8, 400_000)])
    assert [(row.supply.share if row.supply else None, row.delta.energy_mj) for row in rows] == [
        (0.25, 400_000),
        (0.25, 100_000),  # what was cut is estimated, which makes it a row of its own
        (0.75, 300_000),
    ]


def test_an_unknown_supply_is_none_and_costs_as_the_grid_does() -> None:
    """The roof says nothing for 20 s after its last word: from then on nothing is known."""
    meter = metering(Roof([said(0, 5, 1.0, SupplyUnit.SHARE)]), ManualClock(T0 + timedelta(hours=1)))
    rows = charged(
        meter, [used("A", 0, 5, 500_000)], [used("A", 5, 25, 500_000)], [used("A", 25, 30, 500_000)]
    )
    assert [row.supply.source.kind if row.supply else None for row in rows] == [
        Kind.ACTUAL,
        Kind.ESTIMATED,
        None,
    ]
    assert rows[-1].on_site_grams is None


@pytest.mark.parametrize("hours", [1, 100])
def test_what_was_used_while_the_daemon_was_away_has_no_part_of_a_power(hours: int) -> None:
    """What of it was given out before is not known any more; of a share it does not matter."""
    away = used("A", 0, hours * 3600, 500_000, bridged=True)
    for unit, share in ((SupplyUnit.KW, None), (SupplyUnit.SHARE, 1.0)):
        clock = ManualClock(T0 + timedelta(hours=hours + 1))
        meter = metering(Roof([said(0, (hours + 1) * 3600, 1.0, unit)]), clock)
        rows = charged(meter, [away], [used("A", hours * 3600, hours * 3600 + 1, 50_000)])
        assert rows[0].supply is None if share is None else rows[0].supply is not None
        assert rows[-1].supply is not None


def test_a_clock_that_was_set_back_gives_nothing_out_twice() -> None:
    meter = metering(Roof([said(-9000, 3600, 0.1)]), ManualClock(T0 + timedelta(hours=1)))
    first = charged(meter, [used("A", 0, 10, 2_000_000)])
    again = charged(meter, [used("A", 2, 10, 2_000_000)], [used("A", 10, 12, 500_000)])
    assert taken_mj(first + again) == pytest.approx(0.1 * 12 * KWS_MJ)
    back = charged(meter, [used("A", -8000, -7990, 2_000_000)])
    assert taken_mj(back) == pytest.approx(0.1 * 10 * KWS_MJ)


def test_without_a_supply_a_row_is_as_it_ever_was() -> None:
    [row] = charged(metering(None, ManualClock(T0)), [used("A", 0, 5, 500_000)])
    assert row.supply is None
    assert "supply" not in canonical(flatten(row))

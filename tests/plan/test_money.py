"""A job that weighs money: hours are chosen by grams and EUR, the budget stays one of grams."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.plan.explain import explain
from carbonsched.plan.forecasting.prices import with_prices
from carbonsched.plan.planner import solve
from carbonsched.plan.problem import EnergyModel, JobSegment, Problem, Slot
from carbonsched.plan.segment_arrays import SegmentArrays
from carbonsched.units import J_PER_KWH

HOUR = 3600.0
LINEAR = ((0.0, 0.0), (1.0, 1.0))
KWH = EnergyModel(J_PER_KWH, 0.2, HOUR, 1.0, sigma=0.0)
FEW = settings(max_examples=8, deadline=None)


def job(grams: list[float], eur: list[float | None], budget_g: float, n: int, **more) -> Problem:
    """Segments of a kWh an hour, in hours of these intensities and prices."""
    slots = tuple(
        Slot(i * HOUR, (i + 1) * HOUR, g, g, eur_per_kwh=e)
        for i, (g, e) in enumerate(zip(grams, eur, strict=True))
    )
    fields = {"may_pause": True, "deadline_s": len(grams) * HOUR, "eur_per_kg": 1.0} | more
    segments = tuple(JobSegment(k, 1, LINEAR) for k in range(n))
    return Problem(segments, slots, KWH, budget_g, 0.4, 1.0, **fields)


grid = st.lists(st.tuples(st.floats(30.0, 800.0), st.floats(-0.2, 0.8)), min_size=4, max_size=10)


@FEW
@given(hours=grid, share=st.floats(-0.1, 1.3), pause=st.booleans(), c0=st.floats(0.2, 1.0))
def test_without_a_worth_of_a_kg_or_with_an_endless_one_the_plan_is_that_of_grams_to_the_bit(
    hours, share, pause, c0
):
    grams, eur = map(list, zip(*hours, strict=True))
    n = max(2, len(hours) // 2)
    full = sum(grams) / len(grams) * n
    energy = replace(KWH, seconds_c0=c0)
    plain = replace(
        job(grams, [None] * len(grams), full * (0.52 + 0.48 * share), n, may_pause=pause, eur_per_kg=None),
        energy=energy,
    )
    plan = solve(plain)
    priced = tuple(replace(slot, eur_per_kwh=e) for slot, e in zip(plain.slots, eur, strict=True))

    def grams_alone(other):
        return replace(other, eur_per_kg=None, slots=plain.slots)

    for asked in (replace(plain, slots=priced), replace(plain, eur_per_kg=1.0)):
        assert grams_alone(asked) == plain
        found = solve(asked)
        without = tuple(replace(p, eur=None) for p in found.segments)
        assert replace(found, segments=without) == plan
    if plan.price != 0:  # with grams to spare money alone says when
        endless = solve(replace(plain, slots=priced, eur_per_kg=1e300))
        assert [(p.start_s, p.rho, p.grams) for p in endless.segments] == [
            (p.start_s, p.rho, p.grams) for p in plan.segments
        ]


@FEW
@given(hours=grid, share=st.floats(0.0, 1.3), eur_per_kg=st.sampled_from([0.0, 0.01, 0.1, 1.0, 100.0]))
def test_the_budget_in_grams_is_never_passed_and_the_deadline_kept(hours, share, eur_per_kg):
    grams, eur = map(list, zip(*hours, strict=True))
    n = max(2, len(hours) // 2)
    floor = solve(job(grams, eur, 1e9, n, eur_per_kg=None)).floor_g
    budget = floor + share * (sum(sorted(grams)[-n:]) - floor) + 1e-6
    plan = solve(job(grams, eur, budget, n, eur_per_kg=eur_per_kg))
    assert plan.action != "stop"
    assert plan.spend_g <= budget * (1 + 1e-9)
    assert plan.segments[-1].end_s <= len(hours) * HOUR + 1e-3
    assert all(0.4 - 1e-9 <= p.rho <= 1 + 1e-9 for p in plan.segments)
    assert all(p.eur is not None for p in plan.segments)


def test_of_equal_intensities_the_cheaper_hours_are_taken_and_of_equal_prices_the_cleaner():
    cheap = solve(job([300.0] * 4, [0.4, 0.3, 0.05, 0.1], 480.0, 2))
    assert cheap.action == "wait"
    assert [round(p.start_s / HOUR, 1) for p in cheap.segments] == [2.0, 3.0]
    assert cheap.reason.startswith("wait 2 h for 300 g/kWh, now 300 and 0.05 EUR/kWh, now 0.4")
    clean = solve(job([400.0, 300.0, 100.0, 200.0], [0.3] * 4, 240.0, 2))
    assert [round(p.start_s / HOUR, 1) for p in clean.segments] == [2.0, 3.0]


def test_with_grams_to_spare_full_speed_waits_for_the_cheapest_hours():
    spare = job([300.0] * 4, [0.4, 0.3, -0.05, 0.1], 5000.0, 2)
    plan = solve(spare)
    assert (plan.action, plan.wait_s, plan.binding) == ("wait", pytest.approx(2 * HOUR), ("price",))
    assert [p.rho for p in plan.segments] == [1.0, 1.0]
    assert sum(p.eur for p in plan.segments) == pytest.approx(0.05)
    assert solve(replace(spare, eur_per_kg=None)).action == "train"
    assert solve(replace(spare, may_pause=False)).action == "train"
    # cheap and dirty: there is not that much to spare
    dirty = [300.0, 300.0, 900.0, 900.0]
    kept = solve(job(dirty, [0.4, 0.3, -0.05, 0.1], 700.0, 2))
    assert kept.spend_g <= 700.0
    assert [p.start_s for p in kept.segments] == pytest.approx([0.0, HOUR])


def test_what_a_kg_is_worth_decides_between_a_clean_hour_and_a_cheap_one():
    # the cheap hour emits 200 g more and costs 0.1 EUR less: worth it below 0.5 EUR/kg
    for eur_per_kg, hour in ((0.3, 1), (0.7, 0), (0.0, 1)):
        asked = job([100.0, 300.0], [0.2, 0.1], 10_000.0, 1, eur_per_kg=eur_per_kg)
        assert solve(asked).segments[0].start_s == pytest.approx(hour * HOUR), eur_per_kg


@pytest.mark.parametrize(
    "waits",
    [{"idle_w": 90.0}, {"switch_j": 30 * J_PER_KWH}, {"idle_w": 90.0, "waiting": True}],
    ids=["idle", "switch", "waiting"],
)
@pytest.mark.parametrize("budget_g", [5000.0, 550.0], ids=["to spare", "tight"])
@pytest.mark.parametrize("eur", [[-0.3] * 12, [-0.3] * 6 + [0.05] * 6], ids=["negative", "negative at first"])
def test_waiting_earns_nothing_though_whoever_takes_energy_is_paid_for_it(waits, budget_g, eur):
    plan = solve(job([300.0] * 12, eur, budget_g, 3, eur_per_kg=0.1, **waits))
    assert plan.action == "train"
    assert [p.start_s for p in plan.segments] == pytest.approx([0.0, HOUR, 2 * HOUR])
    # what is expected to be paid is told as it is
    assert sum(p.eur for p in plan.segments) < 0


@FEW
@given(
    hours=st.lists(st.tuples(st.floats(60.0, 600.0), st.floats(0.0, 0.6)), min_size=6, max_size=6),
    share=st.floats(0.2, 1.2),
    eur_per_kg=st.floats(0.3, 5.0),
)
def test_a_plan_is_near_brute_force_on_a_tiny_problem(hours, share, eur_per_kg):
    """Two segments, six hours, ρ in 7 steps: no choice within the budget gains more and costs less, in grams and money."""
    grams, eur = map(list, zip(*hours, strict=True))
    cost = [g + 1000 * e / eur_per_kg for g, e in zip(grams, eur, strict=True)]
    floor, full = sum(sorted(grams)[:2]) * 0.52, grams[0] + grams[1]
    budget = floor + share * max(full - floor, 1.0)
    asked = job(grams, eur, budget, 2, eur_per_kg=eur_per_kg)
    plan, arrays = solve(asked), SegmentArrays(asked)
    assert plan.spend_g <= budget * (1 + 1e-9)
    starts = np.array([p.start_s for p in plan.segments])
    rho = np.array([p.rho for p in plan.segments])
    mine = float((arrays.weighed(1.0).training.mean_between(starts, starts + HOUR) * (0.2 + 0.8 * rho)).sum())
    gain, rhos = float(rho.sum()) / 2, np.linspace(0.4, 1.0, 7)
    for a, b in itertools.combinations(range(6), 2):
        for r, q in itertools.product(rhos, rhos):
            if grams[a] * (0.2 + 0.8 * r) + grams[b] * (0.2 + 0.8 * q) <= budget:
                other = cost[a] * (0.2 + 0.8 * r) + cost[b] * (0.2 + 0.8 * q)
                assert not ((r + q) / 2 > gain + 0.02 and other < 0.97 * mine), (a, b, r, q)
    if plan.price == 0 and plan.binding == ("price",):
        assert mine <= min(cost[a] + cost[b] for a, b in itertools.combinations(range(6), 2)) * 1.02


def test_an_unknown_price_counts_as_the_mean_and_none_at_all_as_nothing():
    plan = solve(job([300.0] * 4, [0.4, None, 0.1, None], 480.0, 1))
    assert plan.segments[0].start_s == pytest.approx(2 * HOUR)
    assert plan.segments[0].eur == pytest.approx(0.1)
    unknown = job([300.0] * 4, [None] * 4, 480.0, 1)
    assert solve(unknown) == solve(replace(unknown, eur_per_kg=None))
    assert solve(unknown).segments[0].eur is None


def test_published_prices_cut_slots_and_the_past_days_stand_in_beyond_them():
    slots = tuple(Slot(i * HOUR, (i + 1) * HOUR, 300.0, 330.0) for i in range(26))
    published = [(-HOUR / 2, HOUR / 4, 0.5), (HOUR / 4, 2 * HOUR, 0.1)]
    past = [(h * HOUR, (h + 1) * HOUR, 0.2 + (h % 24) / 100) for h in range(-48, 0)]
    cut = with_prices(slots, published, past, 24 * HOUR)
    assert [(s.start_s, s.end_s, s.eur_per_kwh) for s in cut[:3]] == [
        (0.0, HOUR / 4, 0.5),
        (HOUR / 4, HOUR, 0.1),
        (HOUR, 2 * HOUR, 0.1),
    ]
    assert [s.eur_per_kwh for s in cut[3:]] == pytest.approx([0.2 + (h % 24) / 100 for h in range(2, 26)])
    # a block of a day or two, as of a constant intensity, is cut by the hour where the past days stand in
    block = (Slot(-HOUR, 26 * HOUR, 300.0, 330.0),)
    whole = with_prices(block, published, past, 24 * HOUR)
    assert [(max(s.start_s, 0.0), s.eur_per_kwh) for s in whole[1:]] == [
        (s.start_s, s.eur_per_kwh) for s in cut[1:] if s.start_s != HOUR
    ]
    quarters = [(a + q * HOUR / 4, a + (q + 1) * HOUR / 4, e + q) for a, _, e in past for q in range(4)]
    assert with_prices(block, published, quarters, 24 * HOUR)[2].eur_per_kwh == pytest.approx(0.22 + 1.5)
    assert with_prices(slots, [], [], 24 * HOUR) == slots
    # a market's day of which nothing else is known: what lies beyond is unknown, and then counts as the mean
    assert with_prices(slots, published, [], 24 * HOUR)[3].eur_per_kwh is None


def test_explained_with_what_it_costs():
    told = explain(job([300.0] * 4, [0.4, 0.3, 0.05, 0.1], 480.0, 2))
    assert told.eur == pytest.approx(sum(s.eur for s in told.segments))
    assert told.money is not None
    assert told.money.startswith("money moves segment 1 by 2 h to 0.05 EUR/kWh, from 0.4")
    assert explain(job([300.0] * 4, [None] * 4, 480.0, 2)).eur is None


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"may_pause": False},
        {"waiting": True},
        {"allowed": ((0.0, 1.5 * HOUR), (3 * HOUR, 4 * HOUR), (6 * HOUR, 12 * HOUR))},
        {"allowed": ((HOUR, 2 * HOUR), (6 * HOUR, 12 * HOUR))},
    ],
    ids=["pauses", "at once", "waiting", "allowed hours", "closed now"],
)
@pytest.mark.parametrize("eur_per_kg", [None, 1e-3])
@pytest.mark.parametrize("eur", [0.2, -0.2])
def test_energy_grams_and_money_are_of_the_same_joules(more, eur_per_kg, eur):
    asked = job(
        [300.0] * 12, [eur] * 12, 5000.0, 3, idle_w=70.0, switch_j=4e5, pue=1.5, eur_per_kg=eur_per_kg
    )
    asked = replace(asked, energy=replace(KWH, tail_j=1e6, tail_s=600.0, overhead_j=1e4), **more)
    dear_first = tuple(
        replace(slot, eur_per_kwh=0.9) if slot.end_s <= 2 * HOUR else slot for slot in asked.slots
    )
    told = []
    for problem in (asked, replace(asked, slots=dear_first)):
        plan = solve(problem)
        told += [p.start_s for p in plan.segments]
        for p in plan.segments:
            assert p.joules / J_PER_KWH * 1.5 * 300.0 == pytest.approx(p.grams)
    for p in solve(asked).segments:
        assert p.eur == pytest.approx(p.joules / J_PER_KWH * 1.5 * eur)
    if eur_per_kg and more.get("may_pause", True):
        assert max(told) > 3 * HOUR, "no wait was tried"


def test_money_is_told_by_the_prices_of_the_time_though_the_plan_knows_one_long_slot():
    slot = (Slot(0.0, 48 * HOUR, 300.0, 330.0),)
    asked = replace(job([300.0], [None], 5000.0, 2, eur_per_kg=None), slots=slot, deadline_s=None)
    prices = with_prices(slot, [(0.0, HOUR / 2, 0.4), (HOUR / 2, 48 * HOUR, -0.1)], [], 24 * HOUR)
    plan = solve(replace(asked, paid=prices))
    assert [p.eur for p in plan.segments] == pytest.approx([0.15, -0.1])
    assert replace(plan, segments=tuple(replace(p, eur=None) for p in plan.segments)) == solve(asked)
    shut = solve(replace(asked, paid=prices, allowed=((2 * HOUR, 48 * HOUR),)))
    assert [p.eur for p in shut.segments] == pytest.approx([-0.1, -0.1])

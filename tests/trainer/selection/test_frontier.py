"""The selection against brute force on small instances, and against an integer program on real profiles."""

import itertools
import math
import random
import time
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shapes import ARCHITECTURES, on_meta, smollm2_135m, t5_small

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile, TensorCost
from trainer.profiling.profiler import profile
from trainer.selection import backward_states
from trainer.selection.cost_model import CostModel
from trainer.selection.frontier import Frontier, Selector

torch.set_num_threads(1)
Group = tuple[float, frozenset[int]]


def make(dw: Sequence[float], groups: Sequence[Group], forward: float = 5) -> Profile:
    """A profile whose operators above more than one tensor are `groups`: (FLOPs, tensors)."""
    rows = []
    for flops, tensors in groups:
        start = len(dw)
        while start - 1 in tensors:
            start -= 1
        rows.append({"flops": flops, "from": start, "also": sorted(i for i in tensors if i < start)})
    return Profile(
        model="made",
        params=len(dw),
        forward_flops=forward,
        full_flops=forward + sum(dw) + sum(flops for flops, _ in groups),
        tensors=tuple(
            TensorCost(name=f"t{i}", numel=1, dw_flops=w, depth_flops=sum(f for f, g in groups if i in g))
            for i, w in enumerate(dw)
        ),
        batch=1,
        seq=1,
        patterns={"groups": rows} if any(row["also"] for row in rows) else {},
    )


def chain(dw: Sequence[float], steps: Sequence[float], forward: float = 5) -> Profile:
    n = len(dw)
    return make(dw, [(s, frozenset(range(k, n))) for k, s in enumerate(steps) if s], forward)


def named(values: Sequence[float]) -> dict[str, float]:
    return {f"t{i}": v for i, v in enumerate(values)}


def brute_force(p: Profile, groups: Sequence[Group], values: Sequence[float]) -> list[tuple[float, float]]:
    """The frontier by trying every selection; costs straight from the definition."""
    everything = []
    for size in range(1, len(values) + 1):
        for chosen in itertools.combinations(range(len(values)), size):
            cost = p.forward_flops + sum(p.tensors[i].dw_flops for i in chosen)
            cost += sum(flops for flops, tensors in groups if tensors & set(chosen))
            everything.append((cost / p.full_flops, math.fsum(values[i] for i in chosen)))
    steps: list[tuple[float, float]] = []
    for rho, value in sorted(everything, key=lambda e: (e[0], -e[1])):
        if not steps or value > steps[-1][1] + 1e-9:
            steps.append((rho, value))
    return steps


def agrees(p: Profile, groups: Sequence[Group], values: Sequence[float]) -> None:
    f = Selector(p).frontier(named(values))
    assert f.exact
    steps = brute_force(p, groups, values)
    points = f.points()
    assert [q.rho for q in points] == pytest.approx([rho for rho, _ in steps])
    assert [q.importance for q in points] == pytest.approx([value for _, value in steps], abs=1e-9)
    for k, (rho, value) in enumerate(steps):
        chosen = f.select(rho + 1e-9)
        assert chosen.importance == pytest.approx(value, abs=1e-9)
        assert chosen.rho_planned == pytest.approx(rho)  # of equals the cheapest
        assert CostModel.of(p).flops(chosen.selected) / p.full_flops == pytest.approx(chosen.rho_planned)
        if k:
            below = f.select(rho - 1e-9)
            assert below.importance == pytest.approx(steps[k - 1][1], abs=1e-9)
    with pytest.raises(InputError, match="floor"):
        f.select(steps[0][0] - 1e-9)


whole = st.integers(0, 12)
fraction = st.integers(0, 4000).map(lambda n: n / 997)
importances = st.one_of(st.sampled_from([-1.0, 0.0, 1.0, 2.0]), st.integers(-300, 300).map(lambda n: n / 97))


@st.composite
def instances(draw: st.DrawFn) -> tuple[Profile, list[Group], list[float]]:
    cost = draw(st.sampled_from([whole, fraction]))
    n = draw(st.integers(1, 8))
    groups: list[Group] = [(draw(cost), frozenset(range(k, n))) for k in range(n) if draw(st.booleans())]
    for _ in range(draw(st.integers(0, 3))):
        some = frozenset(draw(st.sets(st.integers(0, n - 1), min_size=1)))
        groups.append((draw(cost), some))
    return (
        make([draw(cost) for _ in range(n)], groups, draw(st.integers(1, 9))),
        groups,
        [draw(importances) for _ in range(n)],
    )


@pytest.mark.parametrize("gap", [0, backward_states.FOLD_GAP])
def test_equals_brute_force(gap: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward_states, "FOLD_GAP", gap)

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(instances())
    def check(instance: tuple[Profile, list[Group], list[float]]) -> None:
        agrees(*instance)

    check()


@pytest.mark.parametrize("seed", range(4))
def test_equals_brute_force_on_twelve_tensors(seed: int) -> None:
    rng = random.Random(seed)
    dw = [rng.choice([0, 4, 4, 8, 12, rng.randint(1, 30)]) for _ in range(12)]
    groups = [(rng.randint(0, 9), frozenset(range(k, 12))) for k in range(0, 12, 2)]
    groups += [(rng.randint(1, 5), frozenset({k, *range(k + 3, 12)})) for k in range(0, 9, 3)]
    agrees(make(dw, groups), groups, [rng.gauss(0.3, 1) for _ in dw])


def every_cost_and_value(
    p: Profile, groups: Sequence[Group], values: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Of all 2^n − 1 selections, straight from the definition."""
    n = len(values)
    masks = np.arange(1, 1 << n)
    chosen = (masks[:, None] >> np.arange(n)) & 1
    costs = p.forward_flops + chosen @ np.array([t.dw_flops for t in p.tensors])
    for flops, tensors in groups:
        costs = costs + flops * (masks & sum(1 << i for i in tensors) != 0)
    return costs, chosen @ np.array(values)


@pytest.mark.slow
def test_equals_brute_force_on_two_thousand_instances() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        n = rng.randint(1, 14)
        unit = rng.choice([1, 1, 1 / 997])
        cost = [0, 0, rng.randint(1, 40), rng.randint(1, 40), rng.randint(1, 400)]
        dw = [rng.choice(cost) * unit for _ in range(n)]
        groups: list[Group] = [
            (rng.randint(0, 30) * unit, frozenset(range(k, n))) for k in range(n) if rng.random() < 0.6
        ]
        for _ in range(rng.randint(0, 3)):
            groups.append((rng.randint(0, 30) * unit, frozenset(rng.sample(range(n), rng.randint(1, n)))))
        values = [rng.choice([-1.0, 0.0, 1.0, rng.gauss(0.3, 1)]) for _ in range(n)]
        p = make(dw, groups, rng.randint(1, 30))
        f = Selector(p).frontier(named(values))
        assert f.exact
        costs, worth = every_cost_and_value(p, groups, values)
        for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
            rho = f.rho_floor + share * max(1 - f.rho_floor, 0)
            # sums of fractions differ in the last bit by their order: what costs just that much may be in or out
            budget = rho * p.full_flops
            found = f.select(rho).importance
            assert found <= worth[costs <= budget * (1 + 1e-12)].max() + 1e-9
            assert found >= worth[costs <= budget * (1 - 1e-12)].max(initial=-math.inf) - 1e-9
            assert CostModel.of(p).flops(f.select(rho).selected) <= budget * (1 + 1e-12)


def test_branches_that_lead_far_away_are_bought_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As cross-attention: each block's k and v lead on to the encoder only, past all blocks below."""
    n, far = 12, 9
    groups: list[Group] = [(3, frozenset(range(k, n))) for k in range(0, n, 3)]
    groups += [(2, frozenset({k, k + 1, *range(far, n)})) for k in (0, 3, 6)]
    groups += [(1, frozenset({k + 1, *range(far, n)})) for k in (0, 3, 6)]
    rng = random.Random(5)
    p = make([rng.choice([0, 4, 6]) for _ in range(n)], groups)
    monkeypatch.setattr(backward_states, "FOLD_GAP", 2)
    selector = Selector(p)
    assert sum(len(s.branches) for s in selector.states)
    folded = len(selector.states)
    monkeypatch.setattr(backward_states, "FOLD_GAP", 99)
    assert folded < len(Selector(p).states)
    for gap in (2, 99):
        monkeypatch.setattr(backward_states, "FOLD_GAP", gap)
        agrees(p, groups, [rng.gauss(0.5, 1) for _ in range(n)])


def test_a_selection_is_never_empty() -> None:
    f = Selector(chain([3, 3, 3], [4, 4, 4])).frontier(named([-3.0, -1.0, -2.0]))
    assert f.select(1.0).selected == ("t1",)  # the least harm
    assert f.select(f.rho_floor).selected == ("t0",)
    assert [q.importance for q in f.points()] == [-3.0, -1.0]
    assert Selector(chain([3], [4])).frontier({"t0": 0.0}).select(1.0).selected == ("t0",)


def test_what_adds_nothing_is_left_out_and_of_equals_the_cheapest_is_taken() -> None:
    f = Selector(chain([3, 3, 3], [4, 4, 4])).frontier(named([1.0, 1.0, 0.0]))
    assert f.select(1.0).selected == ("t0", "t1")
    assert (
        Selector(chain([3, 3, 3], [4, 4, 4])).frontier(named([0.1, 0.2, 0.3])).select(1.0).rho_planned == 1.0
    )
    one = Selector(chain([5, 3, 3], [4, 0, 4])).frontier(named([0.1, 0.1, 0.1]))
    assert one.select(12 / 24).selected == ("t1",)
    ties = Selector(chain([3, 3, 3], [4, 4, 4])).frontier(named([0.1, 0.2, 0.30000000000000004]))
    assert [q.rho for q in ties.points()] == pytest.approx(
        [12 / 26, 16 / 26, 19 / 26, 23 / 26, 1.0], abs=0.05
    )


def test_ratios_of_the_curve_reach_their_own_selection() -> None:
    p = real("smollm2")
    f = Selector(p).frontier(drawn(p))
    for point in f.points(50):
        chosen = f.select(point.rho)
        assert chosen.rho_planned == point.rho
        assert chosen.importance == pytest.approx(point.importance)


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1.0, 1e9, 1e300])
def test_the_scale_of_importances_does_not_matter(scale: float) -> None:
    p = chain([3, 5, 3, 7], [4, 4, 0, 4])
    f = Selector(p).frontier(named([scale * v for v in (1.0, 2.5, -1.0, 3.0)]))
    assert f.select(1.0).selected == ("t0", "t1", "t3")


def test_importance_must_be_there_and_finite() -> None:
    p = chain([3, 3], [4, 4])
    for bad, word in [
        ({"t0": 1.0}, "t1"),
        ({"t0": 1.0, "t1": math.nan}, "t1"),
        ({"t0": math.inf, "t1": 1.0}, "t0"),
        ({"t0": 1.0, "t1": "much"}, "t1"),
        ({"t0": 1.0, "t1": 1.0, "other": 1.0}, "other"),
    ]:
        with pytest.raises(InputError, match=word):
            Selector(p).frontier(bad)  # type: ignore[arg-type]


def test_below_the_floor_the_error_names_it() -> None:
    p = real("smollm2")
    assert Selector(p).rho_floor == pytest.approx(0.4013, abs=1e-4)
    f = Selector(p).frontier(drawn(p))
    assert f.rho_floor == Selector(p).rho_floor
    with pytest.raises(InputError, match=r"0\.401274"):
        f.select(0.4)
    # only final norm and last block's down projection need no further gradient; the projection has a dw to pay
    assert f.select(Selector(p).rho_floor).selected == ("model.norm.weight",)
    for rho in (math.nan, math.inf, -1.0):
        with pytest.raises(InputError, match="rho"):
            f.select(rho)
    assert f.select(1.5).rho_planned <= 1


def test_a_choice_among_some_tensors_needs_only_their_importance() -> None:
    p = chain([3, 3, 3], [4, 4, 4])
    selector = Selector(p, among=["t1", "t2"])
    f = selector.frontier({"t1": 1.0, "t2": 5.0})
    assert f.rho_floor == selector.rho_floor == pytest.approx(16 / 26)
    assert f.select(1.0).selected == ("t1", "t2")
    assert f.select(0.7).selected == ("t1",)
    with pytest.raises(InputError, match="t9"):
        Selector(p, among=["t9"])
    with pytest.raises(InputError, match="empty"):
        Selector(p, among=[])


@pytest.mark.parametrize("limit", [2, 3, 10])
def test_a_thinned_curve_is_made_of_the_curves_own_steps(limit: int) -> None:
    p = real("t5")
    f = Selector(p).frontier(drawn(p))
    every = {q.rho: q.importance for q in f.points()}
    thin = f.points(limit)
    assert 2 <= len(thin) <= limit
    assert all(every[q.rho] == q.importance for q in thin)
    assert thin[0] == f.points()[0]
    assert thin[-1] == f.points()[-1]
    rhos = list(every)
    assert rhos == sorted(rhos)
    assert list(every.values()) == sorted(every.values())


@cache
def real(name: str) -> Profile:
    if name == "smollm2":
        return profile(on_meta(smollm2_135m()), 4, 128)
    if name == "t5-small":
        return profile(on_meta(t5_small()), 4, 187, 43)
    model = on_meta(ARCHITECTURES[name]())
    return profile(model, 3, 24, 10 if model.config.is_encoder_decoder else None)


def drawn(p: Profile, seed: int = 0) -> dict[str, float]:
    """Like measured ones: larger tensors matter more, some do harm."""
    rng = random.Random(seed)
    return {t.name: t.numel**0.5 * rng.gauss(0.6, 1) for t in p.tensors}


def integer_program(p: Profile, importance: dict[str, float], rho: float) -> float:
    """The optimum by scipy's branch and bound: x_i ≤ y_g for every group g above tensor i."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import lil_array

    model = CostModel.of(p)
    n, g = len(model.names), len(model.group_flops)
    edges = [(i, k) for i in range(n) for k in range(g) if model.above[i] >> k & 1]
    rows = lil_array((len(edges) + 1, n + g))
    for row, (i, k) in enumerate(edges):
        rows[row, i], rows[row, n + k] = 1, -1
    rows[len(edges), :] = np.array([*model.dw, *model.group_flops]) / model.full
    upper = np.array([*[0.0] * len(edges), rho - model.forward / model.full])
    worth = np.array([importance[name] for name in model.names])
    found = milp(
        -np.concatenate((worth, np.zeros(g))) / np.abs(worth).max(),
        constraints=LinearConstraint(rows.tocsr(), -np.inf, upper),
        integrality=np.ones(n + g),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0, "time_limit": 60},
    )
    assert found.status == 0
    return float(worth @ np.round(found.x[:n]))


@pytest.mark.parametrize(("name", "rho"), [("llama", 0.55), ("t5", 0.5), ("t5", 0.8), ("gpt-neox", 0.6)])
def test_equals_an_integer_program(name: str, rho: float) -> None:
    pytest.importorskip("scipy")
    p = real(name)
    importance = drawn(p)
    assert Selector(p).frontier(importance).select(rho).importance == pytest.approx(
        integer_program(p, importance, rho), rel=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9])
@pytest.mark.parametrize("name", ["smollm2", "t5-small"])
def test_equals_an_integer_program_on_models_of_true_size(name: str, rho: float) -> None:
    pytest.importorskip("scipy")
    p = real(name)
    importance = drawn(p, seed=1)
    assert Selector(p).frontier(importance).select(rho).importance == pytest.approx(
        integer_program(p, importance, rho), rel=1e-6
    )


def test_random_selections_never_beat_it() -> None:
    p = real("t5-small")
    importance = drawn(p)
    f = Selector(p).frontier(importance)
    costs = CostModel.of(p)
    rng = random.Random(0)
    names = [t.name for t in p.tensors]
    for _ in range(200):
        reach = names[: rng.randint(1, len(names))]
        chosen = [
            n for n in reach if importance[n] > 0 and rng.random() < rng.choice([0.3, 0.7, 1])
        ] or reach[:1]
        rho = costs.flops(chosen) / p.full_flops
        assert f.select(rho).importance >= sum(importance[n] for n in chosen) - 1e-9


def test_an_odd_head_stays_out_of_the_tables() -> None:
    from transformers import LlamaConfig

    odd = LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, vocab_size=50_257
    )
    p = profile(on_meta(odd), 1, 32)
    f = Selector(p).frontier({t.name: 1.0 for t in p.tensors})
    assert f.exact
    assert f._plan.apart
    assert f.select(1.0).rho_planned == 1.0


def test_costs_that_do_not_fit_are_rounded_up_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.selection import knapsack

    monkeypatch.setattr(knapsack, "MAX_CELLS", 1000)
    rng = random.Random(0)
    dw = [rng.randint(10**8, 10**9) for _ in range(40)]
    p = chain(dw, [10**8] * 40)
    values = [w * rng.uniform(0.7, 1.3) for w in dw]
    f = Selector(p).frontier(named(values))
    assert not f.exact
    monkeypatch.undo()
    exact = Selector(p).frontier(named(values))
    assert exact.exact
    for rho in (0.2, 0.5, 0.8):
        rounded = f.select(rho)
        assert rounded.rho_planned <= rho
        best = exact.select(rho).importance
        assert 0.9 * best < rounded.importance <= best * (1 + 1e-9)


def test_a_frontier_of_smollm2_takes_milliseconds() -> None:
    p = real("smollm2")
    selector = Selector(p)
    importance = drawn(p)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        f: Frontier = selector.frontier(importance)
        f.select(0.6)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05

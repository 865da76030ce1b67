"""Selection that counts on a filled cache: the optimum by brute force, and what a real cached step is counted at."""

import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from support.steer import FakeDaemon, always, directive, of, stopped_in
from support.trainers import plain_trainer
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from carbonsched.errors import InputError
from carbonsched.model.methods.traits import METHODS
from carbonsched.model.profile import Profile, Selection, TensorCost
from carbonsched.model.protocol import FrontierPoint
from trainer import GreenTrainerCallback
from trainer.data.upcoming_batches import Batches
from trainer.distributed.ranks import Ranks
from trainer.distributed.wrapping import train_only
from trainer.job.job_dir import JobDir
from trainer.job.segment import Schedule
from trainer.methods.dropbp import Branches, DropBP
from trainer.methods.method import Method, SelectionCurve
from trainer.methods.registry import build_method
from trainer.profiling.flop_counter import FullStepFlops, Shape, StepCounter
from trainer.profiling.meta_model import meta_model
from trainer.profiling.profiler import profile
from trainer.run import run_job
from trainer.selection.cached_frontier import BestOf, CacheSaving
from trainer.selection.frontier import Selector
from trainer.training.activation_cache import ActivationCache
from trainer.training.skippable_blocks import find_blocks

torch.set_num_threads(1)
SHAPE = Shape(3, 16)


def made(rng: random.Random, n: int) -> tuple[Profile, list[tuple[int, set[int]]]]:
    """A profile with a chain of groups and some beside it."""
    dw = [rng.choice([0, 4, 4, 8, rng.randint(1, 30)]) for _ in range(n)]
    groups = [(rng.randint(1, 9), set(range(k, n))) for k in range(1, n)]
    groups += [(rng.randint(1, 9), set(rng.sample(range(n), 2))) for _ in range(2)]
    rows = []
    for flops, members in groups:
        start = n
        while start - 1 in members:
            start -= 1
        rows.append({"flops": flops, "from": start, "also": sorted(i for i in members if i < start)})
    forward = rng.randint(20, 60)
    tensors = (
        TensorCost(name=f"t{i}", numel=1, depth_flops=sum(f for f, g in groups if i in g), dw_flops=w)
        for i, w in enumerate(dw)
    )
    full = forward + sum(dw) + sum(f for f, _ in groups)
    return Profile(
        model="made", params=n, forward_flops=forward, full_flops=full, tensors=tuple(tensors), batch=1, seq=1,
        patterns={"groups": rows},
    ), groups  # fmt: skip


def test_it_is_the_optimum_at_every_budget() -> None:
    """500 instances of up to 9 tensors, with negative importances, ties and costs of 0; also where the boundary cuts
    through tensors of the same groups."""
    rng = random.Random(0)
    counted_on, deeper = 0, 0
    for _ in range(500):
        n = rng.randint(2, 9)
        p, groups = made(rng, n)
        values = {f"t{i}": rng.choice([-1.0, 0.0, 1.0, rng.gauss(0.3, 1)]) for i in range(n)}
        cut = rng.randint(1, n - 1)
        beneath = {*range(cut, n)} ^ ({rng.randrange(n)} if rng.random() < 0.3 else set())
        above = [f"t{i}" for i in range(n) if i not in beneath]
        if not above or not beneath:
            continue
        saved = rng.randint(1, int(p.forward_flops))
        saving = CacheSaving(frozenset(f"t{i}" for i in beneath), saved / p.full_flops * (1 + 1e-15))
        curve = BestOf(Selector(p).frontier(values), Selector(saving.apply_to(p), above).frontier(values))
        every = []
        for size in range(1, n + 1):
            for chosen in itertools.combinations(range(n), size):
                cost = p.forward_flops + sum(p.tensors[i].dw_flops for i in chosen)
                cost += sum(flops for flops, members in groups if members & set(chosen))
                cost -= 0 if beneath & set(chosen) else saved
                every.append((cost, math.fsum(values[f"t{i}"] for i in chosen), chosen))
        floor = min(cost for cost, _, _ in every)
        assert curve.rho_floor == floor / p.full_flops
        points = {}
        for budget in sorted({cost for cost, _, _ in every}):
            best = max(value for cost, value, _ in every if cost <= budget)
            least = min(cost for cost, value, _ in every if cost <= budget and value > best - 1e-9)
            found = curve.select(budget / p.full_flops)
            assert found.importance == pytest.approx(best, abs=1e-9)
            assert found.rho_planned == pytest.approx(least / p.full_flops, abs=1e-12)
            ran = {int(name[1:]) for name in found.selected}
            if beneath & ran:
                deeper += 1
            else:
                counted_on += 1
            points[least / p.full_flops] = best
        steps = [(q.rho, q.importance) for q in curve.points()]
        assert steps[0][0] == pytest.approx(floor / p.full_flops)
        assert [i for _, i in steps] == sorted({i for _, i in steps})
        for rho, importance in steps:
            assert points[min(points, key=lambda r: abs(r - rho))] == pytest.approx(importance, abs=1e-9)
        with pytest.raises(InputError, match="below the floor"):
            curve.select(floor / p.full_flops - 1e-6)
    assert counted_on > 500
    assert deeper > 500, "both kinds are often the best"


def models(folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    sizes = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    return {
        "llama": AutoModelForCausalLM.from_pretrained(tiny_llama(folder), attn_implementation="eager"),
        "gpt2": GPT2LMHeadModel(
            GPT2Config(vocab_size=50, n_embd=32, n_layer=4, n_head=4, attn_implementation="eager", **off)
        ),
        "opt": OPTForCausalLM(
            OPTConfig(
                vocab_size=50, dropout=0.0, word_embed_proj_dim=32, attn_implementation="eager", **sizes
            )
        ),
    }


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_the_cost_is_what_a_cached_step_is_counted_at(kind: str, tmp_path: Path) -> None:
    """60 random selections an architecture; the last six of any tensors, which empty the cache."""
    model = models(tmp_path)[kind].train()
    p = profile(model, *SHAPE)
    method, names = build_method("random", p), [t.name for t in p.tensors]
    cache = ActivationCache("memory")
    cache.attach(model)
    ids = torch.randint(4, 40, SHAPE[:2])
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in ids]
    loader = DataLoader(rows, batch_size=SHAPE.batch)  # type: ignore[arg-type]
    coming = Batches(loader, Schedule(1, 1, 1), 1, SHAPE.batch, False, Ranks())
    full = FullStepFlops(lambda shape: profile(model, *shape).full_flops)
    blocks = find_blocks(model)
    top = {id(q) for block in blocks[2:] for q in block.parameters()}
    upper = tuple(n for n, q in model.named_parameters() if id(q) in top)

    def count(selected: tuple[str, ...], *, stay: bool) -> float:
        train_only(model, selected, names)
        cache.update_depth(9, stay=stay)
        (inputs,) = loader
        with StepCounter() as counter:
            cache.serve(inputs, SHAPE)
            model(**inputs).loss.backward()
        return counter.flops / p.full_flops

    rng = random.Random(1)
    errors = []
    for k in range(60):
        if not cache.filled:
            assert count(upper, stay=False) == pytest.approx(method.ratio(upper), rel=1e-3), "being filled"
            saving = cache.forecast_saving(coming, full, 0, 1)
        assert saving is not None
        shallow = k < 54
        pool = [n for n in names if n not in saving.beneath] if shallow else names
        selected = tuple(rng.sample(pool, rng.randint(1, len(pool))))
        planned = method.ratio(selected, saving)
        assert (planned < method.ratio(selected) - 0.1) == (shallow or not saving.beneath & set(selected))
        errors.append(abs(count(selected, stay=True) / planned - 1))
        assert cache.filled == (planned < method.ratio(selected)), "a deeper one empties it"
    assert max(errors) <= 1e-3
    cache.detach()


def test_what_is_counted_on_is_what_the_rows_that_are_kept_save(tmp_path: Path) -> None:
    """Of the batches to come half are kept: half is saved, of all of them or of a stretch."""
    model = models(tmp_path)["llama"].train()
    p = profile(model, *SHAPE)
    ids = torch.randint(4, 40, (12, 16))
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row} for row in ids]
    loader = DataLoader(rows, batch_size=3)  # type: ignore[arg-type]
    coming = Batches(loader, Schedule(8, 4, 4), 1, 3, False, Ranks())
    full = FullStepFlops(lambda shape: profile(model, *shape).full_flops)
    cache = ActivationCache("memory")
    cache.attach(model)
    assert cache.forecast_saving(coming, full, 0, 4) is None
    train_only(model, ("model.layers.3.mlp.up_proj.weight",), [t.name for t in p.tensors])
    cache.update_depth(9)
    for inputs in list(loader)[:2]:
        cache.serve(inputs, SHAPE)
        model(**inputs)
    (whole, half, none) = (cache.forecast_saving(coming, full, *steps) for steps in ((4, 6), (4, 8), (6, 8)))
    assert whole is not None
    assert half is not None
    assert half.ratio == pytest.approx(whole.ratio / 2)
    assert none is None
    assert whole.beneath == {
        n for n, _ in model.named_parameters() if any(f".{b}." in n for b in (0, 1, 2)) or "embed" in n
    }
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(2)
    assert cache.forecast_saving(coming, full, 4, 8) is None, "another prefix"
    cache.detach()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile(meta_model(tiny_llama(tmp_path_factory.mktemp("llama"))), 4, 32)


@pytest.mark.parametrize("importance", ["update", "concave"])
@pytest.mark.parametrize(
    "name", sorted({*METHODS} - {"dropbp", "tokens", "greentrainer+tokens", "lora+tokens"})
)
def test_every_method_plans_with_it(llama: Profile, name: str, importance: str) -> None:
    lower = frozenset(t.name for t in llama.tensors if "embed" in t.name or ".layers.0." in t.name)
    among = frozenset(t.name for t in llama.tensors) - {"model.embed_tokens.weight"}
    for held in (None, among - lower):
        method, saving = (
            build_method(name, llama, among=held, importance=importance),
            CacheSaving(lower, 0.08),
        )
        values = method.importance(0, {t.name: float(t.numel) for t in llama.tensors})
        plain, choice = method.curve(values), method.curve(values, saving)
        assert choice.floor == pytest.approx(choice.points[0].rho)
        for rho in (0.0, choice.floor, 0.4, 0.6, 0.8, 1.0):
            selection = choice.select(rho)
            assert selection.rho_planned == pytest.approx(method.ratio(selection.selected, saving), abs=1e-6)
            if not METHODS[name].constant_rho:
                assert selection.rho_planned <= max(rho, choice.floor) + 1e-12
                assert selection.importance >= plain.select(rho).importance - 1e-9
        above = not lower & set(method.names) or not METHODS[name].constant_rho
        assert choice.floor == pytest.approx(plain.floor - (0.08 if above else 0.0), abs=1e-6)


def test_dropbp_does_not_count_on_it(llama: Profile) -> None:
    method = build_method("dropbp", llama)
    assert isinstance(method, DropBP)
    method.branches = Branches(("a", "b"), (0.2, 0.2), 1.0)
    saving = CacheSaving(frozenset(), 0.1)
    assert method.curve({}, saving).points == method.curve({}).points


@pytest.mark.slow
def test_a_directed_quarter_is_kept_once_the_cache_is_filled(tmp_path: Path) -> None:
    """Directed .6 while it is filled, then .25, which no selection without it could meet. The same selections without the
    cache train the same weights."""
    ran = {}
    forced: list[tuple[str, ...]] = []
    folder = tiny_llama(tmp_path / "llama", layers=8)
    for cache in ("memory", "off"):
        job = job_folder(
            tmp_path / cache,
            tiny_spec(
                folder,
                word_data(tmp_path / "data", train=128, validation=2),
                train={"cache": cache, "skip_earliest": 0.6, "seed": 5},
            ),
        )

        def answer(event: dict[str, Any]) -> dict[str, Any] | None:
            if event["event"] != "segment_ready":
                return None
            return directive(event["k"], 0.6 if event["k"] == 0 else 0.25)

        with pytest.MonkeyPatch.context() as patch:
            if cache == "off":
                patch.setattr(Method, "curve", chosen(forced))
            with FakeDaemon(job, answer):
                assert run_job(JobDir(job), lambda: False) == "done"
        done, ready = of(job, "segment_done"), of(job, "segment_ready")
        if cache == "memory":
            forced += [tuple(segment["selected"]) for segment in done]
        weights = load_file(job / "output" / "model.safetensors")
        ran[cache] = (ready, done, weights, of(job, "warning"))
    ready, done, weights, warnings = ran["memory"]
    assert [segment["rho_directed"] for segment in done] == [0.6, 0.25, 0.25]
    assert not warnings
    assert ready[0]["rho_floor"] > 1 / 3 > 0.25 > ready[1]["rho_floor"]
    assert ready[1]["frontier"][0]["rho"] == pytest.approx(ready[1]["rho_floor"])
    for segment in done:
        assert segment["rho_realised"] <= segment["rho_directed"]
        assert segment["rho_realised"] == pytest.approx(segment["rho_planned"], rel=1e-3)
        assert segment["rho_planned"] > segment["rho_directed"] - 0.02, "the budget is used"
    _, plain, same, _ = ran["off"]
    assert [segment["selected"] for segment in plain] == [segment["selected"] for segment in done]
    assert plain[1]["rho_realised"] > 1 / 3
    assert weights.keys() == same.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, same[name], atol=1e-6, rtol=1e-5)


def test_a_lower_rho_in_mid_segment_counts_on_what_is_kept_by_then(tmp_path: Path) -> None:
    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_ready":
            return directive(event["k"], 0.6, max_steps=8 if event["k"] == 1 else 10_000)
        if event["event"] == "waiting":
            return directive(1, 0.25)
        return None

    job = cached_job(tmp_path, segment=16)
    with FakeDaemon(job, answer):
        assert run_job(JobDir(job), lambda: False) == "done"
    done = of(job, "segment_done")
    assert of(job, "waiting")
    assert done[1]["rho_directed"] == 0.25
    assert not of(job, "warning")
    for segment in done:
        assert segment["rho_realised"] == pytest.approx(segment["rho_planned"], rel=1e-3)
    assert done[1]["rho_realised"] < 0.58


def test_a_resumed_job_whose_cache_is_gone_selects_anew(tmp_path: Path) -> None:
    """The selection that it was stopped under would now pass the directed ρ."""
    job = cached_job(tmp_path)
    with FakeDaemon(job, stopped_in(1, 0.45, 5)):
        assert run_job(JobDir(job), lambda: False) == "stopped"
    with FakeDaemon(job, always(0.45)):
        assert run_job(JobDir(job), lambda: False) == "done"
    first, last, again, *_ = of(job, "segment_ready")
    assert last["rho_floor"] < first["rho_floor"] - 0.1
    assert again["k"] == 1
    assert again["rho_floor"] == pytest.approx(first["rho_floor"], abs=1e-9)
    assert of(job, "segment_done")[-1]["k"] == 2
    for segment in of(job, "segment_done"):
        assert segment["rho_realised"] <= 0.45
        assert segment["rho_realised"] == pytest.approx(segment["rho_planned"], rel=1e-3)


@pytest.mark.parametrize("rich", [False, True])
def test_it_begins_anew_further_up_only_where_rho_pays_for_it(
    tmp_path: Path, rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_llama(tmp_path / "llama", layers=8)
    up = [f"model.layers.{block}.mlp.up_proj.weight" for block in range(8)]
    selections = [(up[1], up[7]), *[(up[7],)] * 4]
    monkeypatch.setattr(Method, "curve", chosen(selections))
    green = GreenTrainerCallback(rho=0.5 if rich else 0.33, method="random", cache="memory")
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    plain_trainer(model, folder, tmp_path / "out", [green], num_train_epochs=5).train()
    planned = [done.rho_planned for done in green.history]
    assert [done.rho_realised for done in green.history] == pytest.approx(planned, rel=0.02)
    _, second, third, fourth, fifth = planned
    if rich:
        assert second > 0.35, "the whole forward pass, while it is filled from block 7 on"
        assert max(third, fourth, fifth) < 0.1
    else:
        assert max(second, third, fourth, fifth) <= 0.33
        assert min(third, fourth, fifth) > 0.25


def cached_job(folder: Path, **train: Any) -> Path:
    data = word_data(folder / "data", train=64, validation=2)
    train = {"method": "random", "cache": "memory", "skip_earliest": 0.6, "seed": 5, **train}
    return job_folder(folder / "job", tiny_spec(tiny_llama(folder / "llama", layers=8), data, train=train))


def chosen(selections: list[tuple[str, ...]]) -> Any:
    """`Method.curve` that takes given selections, one a segment."""
    coming = iter(selections)

    def curve(
        self: Method, importance: dict[str, float], saving: CacheSaving | None = None
    ) -> SelectionCurve:
        names = next(coming)
        rho = self.ratio(names, saving)
        taken = Selection(rho_planned=rho, importance=1.0, selected=names)
        return SelectionCurve(0.0, (FrontierPoint(rho=rho, importance=1.0),), lambda _: taken, saving)

    return curve

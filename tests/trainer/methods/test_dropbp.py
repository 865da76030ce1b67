"""DropBP: its branches, their price and the draws on tiny models of many architectures, and real runs by a job directory."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.models import job_folder, tiny_llama, tiny_spec, tiny_t5, word_data
from support.shapes import ARCHITECTURES, on_meta
from support.steer import FakeDaemon, always, directive, of, stopped_in

from carbonsched.errors import InputError
from trainer.job.job_dir import JobDir
from trainer.methods.dropbp import Branches, DropBP, Dropper, find, measure
from trainer.methods.registry import build_method
from trainer.profiling.flop_counter import Shape, StepCounter
from trainer.profiling.meta_model import meta_model
from trainer.profiling.profiler import profile
from trainer.run import run_job

torch.set_num_threads(1)
EVERY = [
    pytest.param(
        name, marks=() if name in ("bloom", "gpt2", "llama", "mixtral", "opt", "t5") else pytest.mark.slow
    )
    for name in sorted(ARCHITECTURES)
]


def shape_of(config: Any) -> Shape:
    return Shape(2, 16, 8) if config.is_encoder_decoder else Shape(2, 16)


def loaded(name: str, attn: str = "eager") -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    torch.manual_seed(0)
    config = ARCHITECTURES[name]()
    factory = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = factory.from_config(config, attn_implementation=attn).eval()
    for part in (model.config, model.generation_config):
        part.pad_token_id = part.decoder_start_token_id = 0
    return model


def batch_of(model: Any, shape: Shape) -> dict[str, torch.Tensor]:
    tokens = torch.randint(1, 300, (shape.batch, max(shape.seq, shape.target_seq or 0)))
    inputs = tokens[:, : shape.seq]
    return {
        "input_ids": inputs,
        "attention_mask": torch.ones_like(inputs),
        "labels": tokens[:, : shape.target_seq or shape.seq].contiguous(),
    }


@pytest.mark.parametrize("name", EVERY)
def test_the_price_of_every_draw_is_what_a_step_counts(name: str) -> None:
    config = ARCHITECTURES[name]()
    shape = shape_of(config)
    model = on_meta(config)
    full = profile(model, *shape).full_flops
    branches = measure(model, shape, full)
    assert branches.whole == pytest.approx(1)
    assert branches.floor < 0.62
    each = 2 if not config.is_encoder_decoder else 2.5
    blocks = 3 if not config.is_encoder_decoder else 6
    assert len(branches.names) == each * blocks - config.is_encoder_decoder, "one cross-attention is kept"
    # on the meta device like the measurement, but of any mixture of branches
    from trainer.methods.dropbp import _step_flops
    from trainer.profiling.meta_model import meta_twin

    twin = meta_twin(model)
    dropper = Dropper(twin, branches, seed=3)
    for step in range(2):
        price = dropper.draw(0.75, step)
        assert _step_flops(twin, shape) / full == pytest.approx(price, rel=1e-12)


@pytest.mark.parametrize("name", ["llama", "opt", "bloom", "gpt2", "t5", "mixtral"])
def test_forward_is_unchanged_and_dropped_branches_get_no_gradient(name: str) -> None:
    model = loaded(name)
    shape = shape_of(model.config)
    batch = batch_of(model, shape)
    expected = model(**batch).loss.detach()
    branches = measure(model, shape, profile(model, *shape).full_flops)
    dropper = Dropper(model, branches, seed=0)
    dropped = branches.draw(0.7, 0, 1)
    assert 0 < len(dropped) < len(branches.names)
    dropper.set(dropped)
    loss = model(**batch).loss
    assert torch.equal(loss.detach(), expected)
    loss.backward()
    inside = find(model)
    shut = {id(p) for at in dropped for m in inside[branches.names[at]] for p in m.parameters(recurse=False)}
    for parameter_name, parameter in model.named_parameters():
        if id(parameter) in shut:
            assert parameter.grad is None, parameter_name
    for at in set(range(len(branches.names))) - set(dropped):
        matrices = [m.weight for m in inside[branches.names[at]] if getattr(m, "weight", None) is not None]
        assert any(w.grad is not None for w in matrices), branches.names[at]
    dropper.remove()
    model.zero_grad()
    model(**batch).loss.backward()
    assert all(model.get_parameter(n).grad is not None for n, p in model.named_parameters() if id(p) in shut)


def test_the_gradient_passes_a_dropped_branch_by_the_identity_alone() -> None:
    """With every branch dropped the embedding's gradient is that of a model whose branches are constants."""
    model = loaded("llama")
    shape = Shape(2, 16)
    batch = batch_of(model, shape)
    branches = measure(model, shape, profile(model, *shape).full_flops)
    dropper = Dropper(model, branches)
    dropper.set(range(len(branches.names)))
    model(**batch).loss.backward()
    found = model.model.embed_tokens.weight.grad.clone()
    dropper.remove()
    model.zero_grad()
    for block in model.model.layers:
        block.self_attn.register_forward_hook(lambda m, a, out: (out[0].detach(), *out[1:]))
        block.mlp.register_forward_hook(lambda m, a, out: out.detach())
    model(**batch).loss.backward()
    torch.testing.assert_close(found, model.model.embed_tokens.weight.grad)


def test_frozen_tensors_are_not_paid_for() -> None:
    model = on_meta(ARCHITECTURES["llama"]())
    model.model.embed_tokens.weight.requires_grad_(False)
    model.model.layers[0].self_attn.q_proj.weight.requires_grad_(False)
    shape = Shape(2, 16)
    branches = measure(model, shape, profile(model, *shape).full_flops)
    assert branches.whole < 1
    first, second = branches.saves[0], branches.saves[2]
    assert first < second, "nothing lies beneath the first attention, and one matrix of it is frozen"


def test_a_model_without_blocks_is_refused() -> None:
    from transformers import BertConfig

    model = on_meta(
        BertConfig(
            vocab_size=301,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            is_decoder=True,
        )
    )
    with pytest.raises(InputError, match="'dropbp' finds no residual branches in bert; use greentrainer"):
        measure(model, Shape(2, 16), 1.0)


BRANCHES = Branches(tuple("abcdefghijkl"), (0.02, 0.05) * 6, 1.0)


@pytest.mark.parametrize("rho", [0.6, 0.8])
def test_draws_meet_rho_in_expectation_and_nearly_in_every_step(rho: float) -> None:
    ratios = [BRANCHES.ratio(BRANCHES.draw(rho, 0, step)) for step in range(2000)]
    assert np.mean(ratios) == pytest.approx(rho, rel=0.02)
    assert max(abs(r - rho) for r in ratios) <= 0.05 + 0.02 + 1e-9, "within a branch of each kind"


def test_every_branch_is_dropped_at_the_same_rate() -> None:
    counts = np.zeros(12)
    for step in range(4000):
        counts[BRANCHES.draw(0.7, 5, step)] += 1
    assert counts / 4000 == pytest.approx(BRANCHES.rate(0.7), abs=0.03)


@given(st.floats(0, 1.5), st.integers(0, 10), st.integers(0, 10**6))
def test_a_draw_repeats_and_stays_within_what_can_be_dropped(rho: float, seed: int, step: int) -> None:
    drawn = BRANCHES.draw(rho, seed, step)
    assert drawn == BRANCHES.draw(rho, seed, step)
    assert len(set(drawn)) == len(drawn)
    if rho >= 1:
        assert drawn == []
    if rho <= BRANCHES.floor:
        assert len(drawn) == 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_data(tmp_path_factory.mktemp("data"), train=64)


def train(job: Path, answer: Any, **options: Any) -> str:
    (job / "control.json").unlink(missing_ok=True)
    with FakeDaemon(job, answer):
        return run_job(JobDir(job), options.pop("stopping", lambda: False), **options)


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_a_run_spends_what_it_was_told(llama: Path, data: Path, tmp_path: Path, rho: float) -> None:
    spec = tiny_spec(llama, data, data={"pad": "longest"}, train={"method": "dropbp", "epochs": 2})
    job = job_folder(tmp_path / "job", spec)
    assert train(job, always(rho)) == "done"
    ready, done = of(job, "segment_ready"), of(job, "segment_done")
    assert ready[0]["rho_floor"] < 0.4
    points = ready[0]["frontier"]
    slopes = np.diff([p["importance"] for p in points]) / np.diff([p["rho"] for p in points])
    assert slopes == pytest.approx(slopes[0]), "the gain is linear"
    assert all(d["rho_planned"] == rho for d in done)
    spent, full = sum(d["flops"] for d in done), sum(d["flops_full"] for d in done)
    assert spent / full == pytest.approx(rho, rel=0.02)
    before, after = of(job, "evaluated")
    assert after["loss"] < before["loss"]


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_realised_is_counted_step_by_step(
    llama: Path, data: Path, tmp_path: Path, attn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Count every step for real, beside the callback, and compare with what it reports."""
    from trainer.training.callback import GreenTrainerCallback

    counted: list[float] = []
    begin, end = GreenTrainerCallback.on_step_begin, GreenTrainerCallback.on_pre_optimizer_step

    def on_step_begin(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.beside = StepCounter()
        self.beside.start()

    def on_pre_optimizer_step(self: Any, *args: Any, **kwargs: Any) -> None:
        self.beside.stop()
        counted.append(self.beside.flops)
        end(self, *args, **kwargs)

    monkeypatch.setattr(GreenTrainerCallback, "on_step_begin", on_step_begin)
    monkeypatch.setattr(GreenTrainerCallback, "on_pre_optimizer_step", on_pre_optimizer_step)
    spec = tiny_spec(llama, data, model={"attn": attn}, train={"method": "dropbp", "epochs": 1})
    job = job_folder(tmp_path / "job", spec)
    train(job, always(0.6))
    (done,) = of(job, "segment_done")
    assert len(counted) == 16
    assert len(set(counted)) > 1, "steps differ"
    assert done["flops"] == pytest.approx(sum(counted))
    assert done["rho_realised"] == pytest.approx(sum(counted) / done["flops_full"])


def test_rho_lowered_in_mid_segment(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data, train={"method": "dropbp", "max_steps": 80, "segment": 80})
    job = job_folder(tmp_path / "job", spec)
    steps = iter([directive(0, 0.45)])

    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] == "segment_ready":
            return directive(0, 0.9)
        return next(steps, None) if event["event"] == "step" else None

    assert train(job, answer) == "done"
    (done,) = of(job, "segment_done")
    assert done["rho_directed"] == 0.45
    assert 0.45 < done["rho_planned"] < 0.9
    assert done["rho_realised"] == pytest.approx(done["rho_planned"], rel=0.02)


def test_checkpointed_blocks_drop_alike_and_their_recomputation_is_apart(
    llama: Path, data: Path, tmp_path: Path
) -> None:
    plain = job_folder(tmp_path / "plain", tiny_spec(llama, data, train={"method": "dropbp", "epochs": 1}))
    train(plain, always(0.6))
    spec = tiny_spec(llama, data, train={"method": "dropbp", "epochs": 1, "gradient_checkpointing": True})
    job = job_folder(tmp_path / "job", spec)
    train(job, always(0.6))
    (one,), (other,) = of(plain, "segment_done"), of(job, "segment_done")
    assert other["flops"] == pytest.approx(one["flops"])
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert one["flops_recomputed"] == 0 < other["flops_recomputed"]


def test_stopped_in_mid_segment_and_resumed_is_exact(data: Path, tmp_path: Path) -> None:
    """With T5's own dropout: draws of branches must not touch, nor depend on, any other generator."""
    from safetensors.torch import load_file

    spec = tiny_spec(
        tiny_t5(tmp_path / "t5"),
        data,
        data={"target_length": 8},
        train={"method": "dropbp", "max_steps": 16, "segment": 8},
    )
    straight = job_folder(tmp_path / "straight", spec)
    train(straight, always(0.7))
    job = job_folder(tmp_path / "job", spec)
    assert train(job, stopped_in(1, 0.7, 3)) == "stopped"
    assert of(job, "finished")[-1]["step"] == 11
    assert train(job, always(0.7)) == "done"
    one, other = (load_file(j / "output" / "model.safetensors") for j in (straight, job))
    assert all(torch.equal(one[n], other[n]) for n in one)
    ours, theirs = of(job, "segment_done"), of(straight, "segment_done")
    assert [d["flops"] for d in ours] == pytest.approx([d["flops"] for d in theirs])
    assert [d["loss"] for d in ours] == pytest.approx([d["loss"] for d in theirs])
    metrics = json.loads((job / "output" / "metrics.json").read_text())
    assert metrics["output"] == "model"


def test_dropbp_offers_a_straight_line_and_trains_everything(tmp_path: Path) -> None:
    llama = profile(meta_model(tiny_llama(tmp_path)), 4, 32)
    method = build_method("dropbp", llama)
    assert isinstance(method, DropBP)
    method.branches = Branches(("a", "b"), (0.2, 0.3), 1.0)
    assert not method.measures()
    curve = method.curve(method.importance(0, None))
    assert curve.floor == method.floor == pytest.approx(0.5)
    for rho, planned, gain in (
        (0.1, 0.5, 0),
        (0.5, 0.5, 0),
        (0.75, 0.75, 0.5),
        (1.0, 1.0, 1.0),
        (2.0, 1.0, 1.0),
    ):
        selection = curve.select(rho)
        assert (selection.rho_planned, selection.importance) == pytest.approx((planned, gain))
        assert len(selection.selected) == len(llama.tensors)
    assert [(p.rho, p.importance) for p in (curve.points[0], curve.points[-1])] == [(0.5, 0.0), (1.0, 1.0)]

"""Kept activations: the same training with fewer FLOPs, and never a stale or wrong row."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama
from support.trainers import losses, plain_trainer
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from carbonsched.errors import InputError
from trainer import GreenTrainerCallback
from trainer.profiling.flop_counter import Shape, StepCounter
from trainer.training.activation_cache import ActivationCache, check_cache
from trainer.training.skippable_blocks import find_blocks

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"), layers=6)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


def batch(lengths: list[int], seq: int, *, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    ids, mask = torch.zeros(len(lengths), seq, dtype=torch.long), torch.zeros(len(lengths), seq).long()
    for i, n in enumerate(lengths):
        ids[i, :n] = torch.randint(4, 40, (n,), generator=draw)
        mask[i, :n] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def train_from(model: Any, block: int) -> None:
    """Block `block` and all above, but not the tied embedding."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in find_blocks(model)[block:]:
        module.requires_grad_(True)


def attached(model: Any, block: int, *, passes: float = 5, gigabytes: float = 1.0) -> ActivationCache:
    cache = ActivationCache("memory", gigabytes)
    cache.attach(model.train())
    train_from(model, block)
    cache.update_depth(passes)
    return cache


def step(model: Any, cache: ActivationCache, inputs: dict[str, torch.Tensor]) -> tuple[float, float, float]:
    """(loss, FLOPs counted, FLOPs saved) of one forward and backward pass; gradients are left."""
    model.zero_grad()
    counter = StepCounter()
    with counter:
        cache.serve(inputs, Shape(*inputs["input_ids"].shape))
        loss = model(**inputs).loss
        loss.backward()
    return float(loss.detach()), counter.flops, cache.take_saved_flops()


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_losses_are_the_same_for_fewer_flops_and_as_planned(folder: Path, tmp_path: Path, place: str) -> None:
    """Batches are shuffled anew, and padded to other lengths, each epoch."""
    ran = {}
    for cache in ("off", place):
        green = GreenTrainerCallback(method="ft-top2", cache=cache)
        trainer = plain_trainer(load(folder), folder, tmp_path / cache, [green], num_train_epochs=3, rows=32)
        trainer.train()
        ran[cache] = (losses(trainer), green.history, [p.detach() for p in trainer.model.parameters()])
    plain, cached = ran["off"], ran[place]
    assert cached[0] == pytest.approx(plain[0], abs=1e-6)
    for one, other in zip(plain[2], cached[2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    first, *later = cached[1]
    assert first.rho_realised == pytest.approx(plain[1][0].rho_realised, abs=1e-9), "the first epoch fills it"
    for done, without in zip(later, plain[1][1:], strict=True):
        assert done.rho_realised < without.rho_realised - 0.15
        assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)


def test_what_is_saved_is_what_the_counter_misses(folder: Path) -> None:
    model = load(folder)
    cache = attached(model, 4)
    inputs = batch([9, 14, 5], 16)
    loss, flops, saved = step(model, cache, inputs)
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    assert saved == 0
    again, fewer, saved = step(model, cache, inputs)
    assert again == loss
    assert fewer + saved == flops
    assert saved > 0.2 * flops
    for one, other in zip(gradients, [p.grad for p in model.parameters() if p.grad is not None], strict=True):
        assert torch.equal(one, other)


def test_a_batch_comes_from_its_board_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not row by row, and not at all where every row is kept."""
    copied: list[torch.Size] = []

    def counting(states: torch.Tensor) -> torch.Tensor:
        copied.append(states.shape)
        return states.detach().clone()

    monkeypatch.setattr("trainer.training.activation_cache.to_host", counting)
    model = load(folder)
    cache = attached(model, 3)
    step(model, cache, batch([9, 14, 5, 12], 16))
    step(model, cache, batch([9, 14, 5, 12], 16))
    assert copied == [torch.Size([4, 16, 32])]
    kept = cache._store
    assert kept is not None
    assert all(kept.get(key).untyped_storage().nbytes() == kept.get(key).nbytes for key in kept._rows), (
        "no row holds its batch"
    )


def test_rows_are_served_in_any_company_and_padding(folder: Path) -> None:
    model = load(folder)
    cache = attached(model, 3)
    inputs = batch([9, 14, 5, 12], 16)
    step(model, cache, inputs)
    mixed = {name: torch.nn.functional.pad(tensor[[3, 1]], (0, 8)) for name, tensor in inputs.items()}
    mixed["labels"][mixed["attention_mask"] == 0] = -100
    loss, _, saved = step(model, cache, mixed)
    assert saved > 0
    cache.detach()
    assert loss == pytest.approx(float(model(**mixed).loss.detach()), abs=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        lambda inputs: inputs["input_ids"].__setitem__((0, 3), 3),
        lambda inputs: inputs["attention_mask"].__setitem__((0, slice(7, None)), 0),
    ],
)
def test_a_row_with_other_tokens_is_another_row(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], None]
) -> None:
    model = load(folder)
    cache = attached(model, 4)
    inputs = batch([9, 14], 16)
    step(model, cache, inputs)
    change(inputs)
    assert step(model, cache, inputs)[2] == 0
    assert step(model, cache, inputs)[2] > 0


@pytest.mark.parametrize("name", ["model.layers.0.mlp.up_proj.weight", "model.embed_tokens.weight"])
def test_a_changed_prefix_empties_it(folder: Path, name: str) -> None:
    """Even where nobody told of it: the tensors are watched, not the selections."""
    model = load(folder)
    cache = attached(model, 4)
    inputs = batch([9, 14], 16)
    step(model, cache, inputs)
    with torch.no_grad():
        model.get_parameter(name).mul_(2)
    loss, _, saved = step(model, cache, inputs)
    assert saved == 0
    cache.detach()
    assert loss == float(model(**inputs).loss.detach())


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_an_optimizers_step_is_seen(folder: Path, optimizer: Any) -> None:
    model = load(folder)
    cache = attached(model, 4)
    inputs = batch([9, 14], 16)
    step(model, cache, inputs)
    optimizer(model.model.layers[5].parameters(), lr=1e-3).step()
    assert step(model, cache, inputs)[2] > 0, "what lies above may change"
    model.model.layers[1].requires_grad_(True)
    model(**inputs).loss.backward()
    optimizer(model.model.layers[1].parameters(), lr=1e-3).step()
    train_from(model, 4)
    assert step(model, cache, inputs)[2] == 0


def test_a_deeper_selection_empties_and_a_higher_one_goes_on(folder: Path) -> None:
    model = load(folder)
    cache = attached(model, 4, passes=5)
    inputs = batch([9, 14], 16)
    step(model, cache, inputs)
    train_from(model, 5)
    cache.update_depth(3)
    assert cache.depth == 4, "3 passes × 4 blocks are more than 2 × 5"
    assert step(model, cache, inputs)[2] > 0
    train_from(model, 2)
    cache.update_depth(2)
    assert cache.depth == 2
    assert step(model, cache, inputs)[2] == 0
    train_from(model, 6)
    cache.update_depth(2)
    assert cache.depth == 6, "1 pass × 6 blocks is more than 2 × 2"
    train_from(model, 0)
    cache.update_depth(2)
    assert cache.depth == 0
    train_from(model, 3)
    cache.update_depth(1)
    assert cache.depth == 0, "no row will come again"


def test_a_trained_embedding_leaves_nothing_to_keep(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load(folder)
    cache = ActivationCache("memory")
    cache.attach(model)
    train_from(model, 4)
    model.lm_head.weight.requires_grad_(True)  # tied: it is the embedding
    with caplog.at_level(logging.WARNING):
        cache.update_depth(5)
    assert cache.depth == 0
    assert "nothing lies under" in caplog.text


def test_a_full_cache_keeps_what_it_has_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = load(folder)
    first, second = batch([9, 14], 16), batch([8, 13], 16, seed=1)
    cache = attached(model, 4, gigabytes=(9 + 14 + 8) * 32 * 4 / 1e9)
    with caplog.at_level(logging.WARNING):
        step(model, cache, first)
        step(model, cache, second)
    assert step(model, cache, first)[2] > 0
    assert step(model, cache, second)[2] == 0
    assert "is full with 3 rows" in caplog.text


def test_other_inputs_and_left_padding_are_computed_whole(folder: Path) -> None:
    model = load(folder)
    cache = attached(model, 4)
    inputs = batch([9, 14], 16)
    left = {name: tensor.flip(1) for name, tensor in inputs.items()}
    placed = {**inputs, "position_ids": torch.arange(16).expand(2, -1) + 3}
    for odd in (left, placed, {**inputs, "output_hidden_states": True}):
        step(model, cache, odd)
        assert step(model, cache, odd)[2] == 0


def test_evaluation_between_steps_is_untouched(folder: Path) -> None:
    model = load(folder)
    cache = attached(model, 4)
    inputs = batch([9, 14], 16)
    step(model, cache, inputs)
    with torch.no_grad():
        before = model(**inputs).logits
    cache.detach()
    with torch.no_grad():
        assert torch.equal(before, model(**inputs).logits)
    assert not any("forward" in block.__dict__ for block in find_blocks(model))


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_other_architectures(kind: str, checkpointing: bool) -> None:
    torch.manual_seed(0)
    if kind == "gpt2":
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=4, n_head=4, **off))
    else:
        sizes = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
        model = OPTForCausalLM(OPTConfig(vocab_size=50, dropout=0.0, word_embed_proj_dim=32, **sizes))
    if checkpointing:
        new = hasattr(model, "activation_checkpointing_enable")  # transformers 5.23 renamed it
        (model.activation_checkpointing_enable if new else model.gradient_checkpointing_enable)()
        model.disable_input_require_grads()  # as the callback does
    cache = attached(model, 3)
    inputs = batch([9, 14], 16)
    loss, flops, _ = step(model, cache, inputs)
    again, fewer, saved = step(model, cache, inputs)
    assert again == loss
    assert fewer + saved == flops
    assert saved > 0


# ---- refusals


def test_dropout_in_the_config_is_refused() -> None:
    with pytest.raises(InputError, match=r"train\.cache: .*_pdrop = 0\.1.*set that to 0"):
        check_cache(GPT2Config())


def test_encoder_decoders_are_refused() -> None:
    from transformers import T5Config

    with pytest.raises(InputError, match="decoder-only"):
        check_cache(T5Config(dropout_rate=0.0))


def test_off_it_does_nothing(folder: Path) -> None:
    model = load(folder)
    cache = ActivationCache()
    cache.attach(model)
    cache.update_depth(9)
    cache.serve(batch([4], 8), Shape(1, 8))
    assert (cache.depth, cache.take_saved_flops()) == (0, 0)
    assert not any("forward" in block.__dict__ for block in find_blocks(model))
    cache.detach()


def test_a_job_asks_for_it_and_one_that_cannot_have_it_is_refused_at_submission(tmp_path: Path) -> None:
    from support.models import job_folder, tiny_spec, tiny_t5, word_data
    from support.steer import FakeDaemon, always, of

    from carbonsched.model.job import JobSpec
    from trainer.check import check_job
    from trainer.job.job_dir import JobDir
    from trainer.run import run_job

    data = word_data(tmp_path / "data", validation=2)
    train = {"method": "random", "cache": "disk", "skip_earliest": 0.6, "stale_state": "offload"}
    job = job_folder(tmp_path / "job", tiny_spec(tiny_llama(tmp_path / "llama"), data, train=train))
    with FakeDaemon(job, always(0.5)):
        assert run_job(JobDir(job), lambda: False) == "done"
    for done in of(job, "segment_done"):
        assert done["rho_realised"] == pytest.approx(done["rho_planned"], rel=1e-3)
        assert done["rho_realised"] <= done["rho_directed"] == 0.5
    first, *_, last = of(job, "segment_ready")
    assert last["rho_floor"] < first["rho_floor"] - 0.05
    assert last["frontier"][-1]["importance"] > 0
    with pytest.raises(InputError, match=r"train\.cache"):
        check_job(JobSpec.parse(tiny_spec(tiny_t5(tmp_path / "t5"), data, train={"cache": "memory"})))

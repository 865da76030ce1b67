"""The profile against what FlopCounterMode counts for a selection itself: tensors frozen for real, every time."""

import copy
import random
from typing import Any

import pytest
import torch
from support.shapes import ARCHITECTURES, HYBRIDS, counted, on_meta, opt_2_7b, smollm2_135m, t5_small

from carbonsched.errors import InputError
from carbonsched.model.profile import Profile
from trainer.profiling.meta_model import meta_model, meta_twin
from trainer.profiling.profiler import make_counter, profile
from trainer.selection.cost_model import CostModel

torch.set_num_threads(1)
BATCH, SEQ, TARGET = 3, 24, 10


def ratio(p: Profile, keep: Any) -> float:
    return CostModel.of(p).flops([t.name for t in p.tensors if keep(t.name)]) / p.full_flops


def some_selections(names: list[str], count: int) -> list[list[str]]:
    """Random ones of all densities, half of them confined to what lies above a random depth."""
    rng = random.Random(0)
    found = []
    for k in range(count):
        reach = names[: rng.randint(1, len(names))] if k % 2 else names
        share = rng.choice([0.02, 0.1, 0.3, 0.7])
        found.append([n for n in reach if rng.random() < share] or [rng.choice(reach)])
    return found


def exact(model: Any, attn: str, count: int) -> Profile:
    p = profile(model, BATCH, SEQ, TARGET if model.config.is_encoder_decoder else None, attn=attn)
    costs = CostModel.of(p)
    twin = meta_twin(model, attn)
    for selected in some_selections([t.name for t in p.tensors], count):
        assert costs.flops(selected) == counted(twin, selected, attn, (BATCH, SEQ, TARGET)), selected
    return p


FAST = ("llama", "t5", "opt", "qwen3", "gpt-neox", "mixtral", "bart")


@pytest.mark.parametrize("name", FAST)
def test_cost_is_the_measured_count_of_any_selection(name: str) -> None:
    exact(on_meta(ARCHITECTURES[name]()), "eager", 20)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted((ARCHITECTURES | HYBRIDS).keys() - set(FAST)))
def test_cost_is_exact_on_every_architecture(name: str) -> None:
    exact(on_meta((ARCHITECTURES | HYBRIDS)[name]()), "eager", 20)


@pytest.mark.parametrize("name", sorted(HYBRIDS))
def test_cost_is_exact_where_grouped_convolutions_stand_between_products(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a convolution's two gradients each belongs to what asks for it."""
    monkeypatch.setattr(f"{__name__}.SEQ", 5)  # state spaces walk from token to token
    exact(on_meta(HYBRIDS[name]()), "eager", 4)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_fused_attention_backward_is_all_or_nothing(name: str) -> None:
    p = exact(on_meta(ARCHITECTURES[name](), "sdpa"), "sdpa", 20)
    assert p.attn == "sdpa"
    eager = profile(on_meta(ARCHITECTURES[name]()), BATCH, SEQ, TARGET if name == "t5" else None)
    assert p.forward_flops == eager.forward_flops
    assert p.full_flops > eager.full_flops  # 2.5 times forward against 2


def test_smollm2_has_its_known_ratios() -> None:
    p = profile(on_meta(smollm2_135m()), 4, 128)
    assert p.params == 134_515_008
    assert len(p.tensors) == 272
    assert ratio(p, lambda n: n == "model.norm.weight") == pytest.approx(0.401, abs=5e-4)
    assert ratio(p, lambda n: ".29." in n) == pytest.approx(0.419, abs=5e-4)
    blocks = [f"model.layers.{k}." for k in range(20, 30)]
    assert ratio(p, lambda n: n.startswith(tuple(blocks))) == pytest.approx(0.578, abs=5e-4)
    assert ratio(p, lambda n: "embed" not in n) == pytest.approx(0.932, abs=5e-4)
    assert ratio(p, lambda n: True) == 1


def test_opt_2_7b_has_its_known_flops() -> None:
    p = profile(on_meta(opt_2_7b()), 4, 512)
    assert p.forward_flops == pytest.approx(11.18e12, rel=1e-3)
    assert p.full_flops - p.forward_flops == pytest.approx(22.36e12, rel=1e-3)


def test_tensors_come_in_the_order_in_which_the_backward_pass_reaches_them() -> None:
    p = profile(on_meta(opt_2_7b()), 1, 16)
    names = [t.name for t in p.tensors]
    depths = [t.depth_flops for t in p.tensors]
    assert depths == sorted(depths)
    # named_parameters() puts this one before all blocks
    assert names.index("model.decoder.final_layer_norm.weight") < names.index(
        "model.decoder.layers.31.fc2.weight"
    )
    assert names[-1] in ("model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight")


def test_a_tied_embedding_is_one_tensor_with_both_costs() -> None:
    tied = profile(on_meta(ARCHITECTURES["llama"]()), BATCH, SEQ)
    embedding = tied.tensors[-1]
    assert embedding.name == "model.embed_tokens.weight"
    assert not any(t.name == "lm_head.weight" for t in tied.tensors)
    assert embedding.dw_flops == 2 * BATCH * SEQ * 64 * 301  # as the head
    assert embedding.depth_flops == max(t.depth_flops for t in tied.tensors)  # as the embedding


def test_a_loaded_model_is_left_as_it_was_and_gives_the_profile_of_its_config() -> None:
    from transformers import AutoModelForCausalLM

    config = ARCHITECTURES["llama"]()
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager").train()
    before = {n: (id(p), p.detach().clone()) for n, p in model.named_parameters()}
    model.model.norm.weight.requires_grad_(False)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    loaded = profile(model, BATCH, SEQ)
    assert loaded.tensors == profile(on_meta(config), BATCH, SEQ).tensors
    assert {t.name for t in loaded.tensors} == set(before)
    assert model.training
    assert not calls
    assert not model.model.norm.weight.requires_grad
    for name, parameter in model.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])
        assert parameter.grad is None


@pytest.mark.parametrize("attn", ["eager", "sdpa"])
def test_a_real_step_counts_what_the_profile_says(attn: str) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"](), attn_implementation=attn).train()
    p = profile(model, BATCH, SEQ)
    assert p.attn == attn
    ids = torch.randint(1, 300, (BATCH, SEQ))
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    for selected in some_selections([t.name for t in p.tensors], 4):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in selected)
            parameter.grad = None
        with make_counter() as count:
            model(input_ids=ids, attention_mask=mask, labels=ids).loss.backward()
        assert count.get_total_flops() == CostModel.of(p).flops(selected)


def test_experts_count_at_what_each_token_is_routed_to() -> None:
    p = profile(on_meta(ARCHITECTURES["mixtral"]()), BATCH, SEQ)
    experts = {t.name: t.dw_flops for t in p.tensors if "experts" in t.name}
    assert max(experts.values()) == 2 * BATCH * SEQ * 2 * (2 * 160) * 64  # two experts a token, gate and up
    assert any("experts" in note for note in p.notes)


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing.:FutureWarning"
)  # peft 0.21 on transformers 5.23
def test_adapters_are_tensors_like_others() -> None:
    import peft
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_config(ARCHITECTURES["llama"](), attn_implementation="eager")
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    p = exact(model, "eager", 10)
    assert {t.name for t in p.tensors} == {n for n, _ in model.named_parameters()}


def test_tensors_without_a_gradient_are_left_out_and_named() -> None:
    model = on_meta(ARCHITECTURES["llama"]())
    model.spare = torch.nn.Parameter(torch.empty(3, device="meta"))
    p = profile(model, BATCH, SEQ)
    assert "spare" not in [t.name for t in p.tensors]
    assert any("spare" in note for note in p.notes)


@pytest.mark.parametrize(
    ("shape", "field"),
    [((0, 8, None), "batch"), ((1, 0, None), "seq"), ((1, 8, 4), "target_seq"), ((1, 4000, None), "seq")],
)
def test_shapes_that_a_decoder_cannot_take(shape: tuple[int, int, int | None], field: str) -> None:
    with pytest.raises(InputError) as caught:
        profile(on_meta(ARCHITECTURES["llama"]()), *shape)
    assert caught.value.field == field


def test_an_encoder_decoder_writes_as_much_as_it_reads_unless_told() -> None:
    model = on_meta(ARCHITECTURES["t5"]())
    assert profile(model, 1, 8).target_seq == 8
    short = profile(on_meta(t5_small()), 4, 128, 32)
    assert short.target_seq == 32
    assert short.full_flops < profile(on_meta(t5_small()), 4, 128).full_flops


def test_meta_model_needs_a_config_and_no_weights(tmp_path: Any) -> None:
    config = ARCHITECTURES["llama"]()
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(tmp_path)
    model = meta_model(tmp_path, attn="sdpa", dtype="bf16")
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in model.parameters())
    p = profile(model, BATCH, SEQ)
    assert (p.dtype, p.attn) == ("bf16", "sdpa")
    assert [t.name for t in p.tensors] == [t.name for t in profile(on_meta(config), BATCH, SEQ).tensors]


def test_meta_model_names_what_is_wrong(tmp_path: Any) -> None:
    for name in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="model:"):
            meta_model(name)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(InputError, match="no-such-architecture"):
        meta_model(tmp_path)
    with pytest.raises(InputError, match="attn"):
        meta_model(tmp_path, attn="flash")

"""Output embeddings on labelled tokens alone: the model's own loss and gradients, at the FLOPs that its profile says."""

from typing import Any

import pytest
import torch
from support.shapes import ARCHITECTURES, on_meta

from carbonsched.errors import InputError
from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.labelled_head import IGNORED, HeadError, LabelledHead, count_labelled
from trainer.profiling.profiler import make_counter, profile
from trainer.profiling.shaped_costs import ShapedCosts
from trainer.selection.cost_model import CostModel

FEW = ["llama", "gemma2", "cohere", "granite", "mixtral", "bart", "t5", "bloom"]
"""Among them: tied weights, soft caps, a scale of the logits, experts, a bias of the logits, an encoder."""


def real(name: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = ARCHITECTURES[name]()
    factory = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(0)
    model = factory.from_config(config, attn_implementation="eager").eval()
    for token in ("decoder_start_token_id", "pad_token_id"):
        if getattr(model.config, token, None) is None:
            setattr(model.config, token, 0)
    return model


def batch() -> dict[str, Any]:
    """Two rows, the second padded; labelled in the middle, at the end, at the first token (which nothing predicts)."""
    ids = torch.randint(1, 60, (2, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    labels = torch.full_like(ids, IGNORED)
    labels[0, 7:], labels[1, 3:5], labels[1, 0] = ids[0, 7:], ids[1, 3:5], ids[1, 0]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def step(model: Any, inputs: Any) -> tuple[torch.Tensor, list[torch.Tensor], float, Any]:
    model.zero_grad()
    with make_counter() as count:
        out = model(**inputs, use_cache=False)
        out.loss.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return out.loss.detach(), gradients, count.get_total_flops(), out.logits


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FEW else [pytest.mark.slow]) for n in sorted(ARCHITECTURES)]
)
def test_loss_and_gradients_are_the_models_own(name: str) -> None:
    model, inputs = real(name), batch()
    if name in ("llama", "mixtral"):  # as a Trainer normalises over several micro-batches
        inputs["num_items_in_batch"] = torch.tensor(17)
    if name == "mixtral":
        inputs["output_router_logits"] = True  # the experts' own loss, over all tokens
    loss, gradients, whole, _ = step(model, inputs)
    head = LabelledHead(model)
    labelled = count_labelled(inputs["labels"], shifted=head.shifted)
    with head.attached():
        ours, found, less, logits = step(model, inputs)
    assert logits.shape[:2] == (1, labelled) == (1, 7 if not head.shifted else 6)
    assert torch.allclose(ours, loss, rtol=1e-6)
    for a, b in zip(found, gradients, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6 * float(b.abs().max()) + 1e-9)
    tokens, width = 2 * 11, head.head.weight.shape
    assert whole - less == (tokens - labelled) * 6 * width[0] * width[1]
    again = step(model, inputs)
    assert again[2] == whole  # detached
    assert torch.equal(again[0], loss)
    assert "_loss_function" not in vars(model)


@pytest.mark.parametrize("name", ["llama", "gemma2", "mixtral", "t5"])
def test_any_selection_costs_what_a_profile_with_labelled_tokens_says(name: str) -> None:
    model, inputs = real(name), batch()
    target = 11 if model.config.is_encoder_decoder else None
    head = LabelledHead(model)
    model.set_experts_implementation("batched_mm") if name == "mixtral" else None
    at = Shape(2, 11, target, count_labelled(inputs["labels"], shifted=head.shifted))
    costs = ShapedCosts()
    with_some, without = (profile(model, 2, 11, target, labelled=n) for n in (4, 0))
    costs.note_labelled(8, with_some, without)
    per_label = (with_some.full_flops - without.full_flops) / 8
    full = FullStepFlops(
        lambda other: costs.note(other, profile(model, *other[:3], labelled=0)).full_flops, per_label
    )
    names = [t.name for t in with_some.tensors]
    with head.attached():
        for selected in (names, names[:3], names[1::5]):
            for n, parameter in model.named_parameters():
                parameter.requires_grad_(n in selected)
            _, _, counted, _ = step(model, inputs)
            assert costs.flops(selected, at, full) == counted
            if selected is names:
                assert full.flops(at) == counted
    assert CostModel.of(with_some).flops(names) == with_some.full_flops
    assert with_some.labelled == 4
    assert full.flops(at) < profile(model, 2, 11, target).full_flops


def test_a_pass_without_gradients_is_left_alone_unless_asked() -> None:
    model, inputs = real("llama"), batch()
    head = LabelledHead(model)
    with torch.no_grad(), head.attached():
        assert model(**inputs).logits.shape[:2] == (2, 11)
        assert head.targets is None
    with torch.no_grad(), head.attached(without_gradient=True):
        assert model(**inputs).logits.shape[:2] == (1, 6)
        assert head.targets is not None
        assert head.targets.shape == (1, 6)


def test_a_batch_without_labels_and_one_without_any_learnt_run_whole_and_empty() -> None:
    model, inputs = real("llama"), batch()
    with LabelledHead(model).attached():
        del inputs["labels"]
        assert model(**inputs).logits.shape[:2] == (2, 11)
        inputs["labels"] = torch.full((2, 11), IGNORED)
        out = model(**inputs, num_items_in_batch=4)
        assert out.loss == 0
        out.loss.backward()


def test_an_error_in_a_pass_leaves_nothing_behind() -> None:
    model, inputs = real("llama"), batch()
    with LabelledHead(model).attached():
        with pytest.raises(IndexError):
            model(**(inputs | {"input_ids": inputs["input_ids"] + 9999}))
        assert "_loss_function" not in vars(model)


def test_the_users_own_loss_function_is_kept_and_refused() -> None:
    model = real("llama")

    def own(logits: Any, labels: Any, **kwargs: Any) -> Any:
        return logits.sum()

    model.loss_function = own
    with pytest.raises(HeadError, match="not the usual one"):
        LabelledHead(model)
    assert model.loss_function is own


def test_a_model_without_output_embeddings_is_refused_in_one_line() -> None:
    from transformers import LlamaConfig, LlamaModel

    with pytest.raises(HeadError, match="no output embeddings"):
        LabelledHead(
            LlamaModel(LlamaConfig(num_hidden_layers=1, hidden_size=8, num_attention_heads=1, vocab_size=9))
        )
    model = on_meta(ARCHITECTURES["llama"]())
    model.loss_function = lambda logits, labels, **kwargs: logits.sum()
    with pytest.raises(InputError, match=r"^labelled: "):
        profile(model, 2, 8, labelled=3)

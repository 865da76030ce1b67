"""Rows in two parts: the loss of the whole rows, and their gradients but for what flows through the first part's keys and values."""

from typing import Any

import pytest
import torch
from support.shapes import ARCHITECTURES, HYBRIDS

from carbonsched.errors import InputError
from trainer.profiling.flop_counter import FullStepFlops, Shape
from trainer.profiling.labelled_head import IGNORED, LabelledHead, count_labelled
from trainer.profiling.meta_model import meta_twin
from trainer.profiling.profiler import make_counter, profile
from trainer.profiling.prompt_cache import DetachedCache, windows
from trainer.profiling.prompt_split import PromptSplit, SplitError
from trainer.profiling.row_ends import RowEnds
from trainer.profiling.shaped_costs import ShapedCosts

torch.set_num_threads(1)
FEW = ["llama", "gemma2", "mixtral", "opt", "bloom", "windows", "longrope", "dynamic", "gpt2"]
"""Among them: tied weights, soft caps, experts, positions from the mask, none at all, learned ones, windows, scalings by length.
(All other causal ARCHITECTURES hold, too, padded on either side.)"""
MORE: dict[str, dict[str, Any]] = {
    "windows": {"sliding_window": 4},
    "dynamic": {
        "max_position_embeddings": 8,
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    },
    "longrope": {
        "max_position_embeddings": 32,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 10,
            "short_factor": [1.0] * 8,
            "long_factor": [3.0] * 8,
        },
    },
}


def built(name: str, attn: str = "eager") -> Any:
    from transformers import AutoModelForCausalLM

    config = ARCHITECTURES.get(name, ARCHITECTURES["mistral" if name == "windows" else "llama"])()
    for key, value in MORE.get(name, {}).items():
        setattr(config, key, value)
    if name == "gemma2":
        config.sliding_window = 5
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, attn_implementation=attn).eval()


def batch(side: str = "right") -> dict[str, Any]:
    """Three rows of 12, 9 and 10 tokens, whose answers are 3, 2 and 4 long."""
    ids = torch.randint(1, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    mask, labels = torch.ones_like(ids), torch.full_like(ids, IGNORED)
    for row, (length, answer) in enumerate([(12, 3), (9, 2), (10, 4)]):
        begin = 0 if side == "right" else 12 - length
        mask[row] = 0
        mask[row, begin : begin + length] = 1
        labels[row, begin + length - answer : begin + length] = ids[
            row, begin + length - answer : begin + length
        ]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def step(model: Any, inputs: Any) -> tuple[torch.Tensor, list[torch.Tensor | None], float]:
    model.zero_grad()
    with make_counter() as count:
        loss = model(**inputs).loss
        loss.backward()
    return (
        loss.detach(),
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        count.get_total_flops(),
    )


def reference(model: Any, inputs: Any, columns: int) -> Any:
    """A step over whole rows, gradients through the first part's keys and values left out."""
    ends_at = inputs["attention_mask"].flip(1).int().argmax(1)
    first = (
        torch.arange(inputs["input_ids"].shape[1])
        < (inputs["input_ids"].shape[1] - columns - ends_at)[:, None]
    )
    given = {**inputs, "cache": DetachedCache(model.config, first), "use_cache": True}
    return step(model, given)


CASES = [(name, "right") for name in FEW] + [("llama", "left"), ("opt", "left")]


@pytest.mark.parametrize(("name", "side"), CASES)
def test_the_loss_is_the_whole_rows_and_so_are_the_gradients_but_for_the_prompts_keys(
    name: str, side: str
) -> None:
    model, inputs = built(name), batch(side)
    split, ends = PromptSplit(model), RowEnds.of(inputs)
    assert ends is not None
    whole, _, flops = step(model, inputs)
    for share in (0.1, 0.7):
        split.share = share
        columns = ends.columns(share)
        assert ends.least <= columns < 12
        with split.attached():
            ours, found, less = step(model, inputs)
        loss, gradients, _ = reference(model, inputs, columns)
        assert torch.allclose(ours, whole, rtol=1e-5)
        assert torch.allclose(loss, whole, rtol=1e-5)
        for a, b in zip(found, gradients, strict=True):
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert torch.allclose(a, b, rtol=1e-3, atol=1e-5 * float(b.abs().max()) + 1e-9)
        assert less < flops
        split.share = 1.0
    with split.attached():
        assert step(model, inputs)[2] == flops
    assert step(model, inputs)[2] == flops
    assert not model._forward_pre_hooks
    assert not split.body._forward_pre_hooks


@pytest.mark.parametrize("headed", [False, True])
@pytest.mark.parametrize("name", ["llama", "gemma2", "windows", "mixtral", "opt"])
def test_any_selection_at_any_share_costs_what_a_profile_in_two_parts_says(name: str, headed: bool) -> None:
    model, inputs = built(name), batch()
    model.set_experts_implementation("batched_mm") if name == "mixtral" else None
    labelled = count_labelled(inputs["labels"], shifted=True)
    costs = ShapedCosts()

    def trace(at: Shape) -> Any:
        each = None if at.labelled is None else at.labelled // at.batch
        return profile(model, *at[:3], labelled=each, gradient=at.gradient)

    if headed:
        costs.note_labelled(9, trace(Shape(3, 12, None, 9)), trace(Shape(3, 12, None, 0)))
    costs.note_split(trace, windows(model.config))
    split, head = PromptSplit(model), LabelledHead(model)
    split.attach()
    head.attach() if headed else None
    names = [n for n, _ in model.named_parameters()]
    ends = RowEnds.of(inputs)
    assert ends is not None
    full = FullStepFlops(lambda at: costs.note(at, trace(at)).full_flops)
    for selected, columns in ((names, 9), (names, 5), (names[:2], 6), (names[1::5], 11), (names, 8)):
        for n, parameter in model.named_parameters():
            parameter.requires_grad_(n in selected)
        split.share = ends.share(columns)
        assert split.look(inputs)[1] == columns
        counted = step(model, inputs)[2]
        at = Shape(3, 12, None, labelled if headed else None, columns)
        assert costs.flops(selected, at, full) == pytest.approx(counted, rel=1e-9)
    head.detach()
    split.detach()
    assert trace(Shape(3, 12, None, None, 5)).gradient == 5
    assert trace(Shape(3, 12, None, None, 12)) == trace(Shape(3, 12))


def test_a_checkpointed_block_reads_the_same_prompt_again() -> None:
    model, inputs = built("llama").train(), batch()
    split = PromptSplit(model)
    split.share = 0.3
    with split.attached():
        plain = step(model, inputs)
        model.activation_checkpointing_enable()
        again = step(model, inputs)
        assert again[2] > plain[2], "blocks were run again"
    assert torch.equal(plain[0], again[0])
    for a, b in zip(plain[1], again[1], strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)
    assert not any("_can_checkpoint_with_cache" in vars(m) for m in model.modules())


def test_under_autocast_every_tensor_has_a_gradient() -> None:
    model, inputs = built("llama", "sdpa"), batch()
    split = PromptSplit(model)
    split.share = 0.3
    with split.attached(), torch.autocast("cpu", torch.bfloat16):
        loss, gradients, _ = step(model, inputs)
    assert all(g is not None and bool(g.abs().max() > 0) for g in gradients)
    assert loss == pytest.approx(float(step(model, inputs)[0]), rel=0.02)


def test_the_first_part_of_text_is_context_and_its_labels_leave_the_mean() -> None:
    model, inputs = built("llama"), batch()
    inputs["labels"] = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], IGNORED)
    ends = RowEnds.of(inputs)
    assert ends is not None
    assert (ends.least, ends.columns(0.01), ends.columns(0.5)) == (3, 3, 5)
    split = PromptSplit(model)
    split.share = 0.5
    whole = count_labelled(inputs["labels"], shifted=True)
    kept = inputs["labels"].clone()
    for row, length in enumerate((12, 9, 10)):
        kept[row, : length - 4] = IGNORED  # of five tokens, the first is nobody's next one
    for more in ({}, {"num_items_in_batch": torch.tensor(whole)}):
        left = {name: torch.tensor(3 * 4) for name in more}
        loss, gradients, _ = reference(model, {**inputs, "labels": kept, **left}, 5)
        with split.attached():
            ours, found, _ = step(model, {**inputs, **more})
        assert torch.allclose(ours, loss, rtol=1e-5)
        for a, b in zip(found, gradients, strict=True):
            assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_what_cannot_be_cut_is_refused_in_one_line() -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaModel

    t5 = AutoModelForSeq2SeqLM.from_config(ARCHITECTURES["t5"]())
    for model, why in (
        (t5, "encoder-decoder"),
        (AutoModelForCausalLM.from_config(HYBRIDS["mamba"]()), "more of the past"),
        (AutoModelForCausalLM.from_config(HYBRIDS["bamba"]()), "more of the past than keys and values"),
        (LlamaModel(ARCHITECTURES["llama"]()), "no body apart"),
    ):
        with pytest.raises(SplitError, match=why):
            PromptSplit(model)
    model = built("llama")
    model.config.is_causal = False
    with pytest.raises(SplitError, match="attend to later"):
        PromptSplit(model)
    with pytest.raises(InputError, match="gradient_share: rows cannot run in two parts"):
        profile(t5, 2, 8, 8, gradient=3)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"position_ids": torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]] * 3)}, "positions begin anew"),
        ({"seq_idx": torch.zeros(3, 12)}, "packed"),
        ({"attention_mask": torch.ones(3, 1, 12, 12)}, "attention mask"),
        ({"position_ids": torch.zeros(3, 3, 12, dtype=torch.long)}, "several kinds"),
    ],
)
def test_rows_that_hang_together_otherwise_are_refused(more: Any, why: str) -> None:
    model, inputs = built("llama"), batch()
    split = PromptSplit(model)
    split.share = 0.5
    with split.attached(), pytest.raises(SplitError, match=why):
        model(**{**inputs, "attention_mask": None, **more})
    assert split._first_part is None


def test_other_passes_are_left_alone() -> None:
    model, inputs = built("llama"), batch()
    split = PromptSplit(model)
    split.share = 0.5
    with split.attached():
        with torch.no_grad():
            assert model(**inputs).logits.shape[:2] == (3, 12)
        assert model(input_ids=inputs["input_ids"]).logits.shape[:2] == (3, 12)
        assert model(**inputs).logits.shape[:2] == (3, 5)
        with pytest.raises(IndexError):
            model(**(inputs | {"input_ids": inputs["input_ids"] + 9999}))
        assert split._first_part is None


def test_a_twin_takes_no_copy_of_what_hangs_on_the_model() -> None:
    class Holder:
        def __deepcopy__(self, memo: Any) -> Any:
            raise AssertionError("a whole training would be copied")

        def look(self, module: Any, args: Any) -> None: ...

    model = built("llama")
    model.register_forward_pre_hook(Holder().look)
    twin = meta_twin(model)
    assert not twin._forward_pre_hooks
    assert len(model._forward_pre_hooks) == 1

"""Batches of other forms than tokens with a label each: profiled as they run, whatever the head."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from support.heads import HEADS, LENGTH, text_batch
from support.models import tiny_t5

from carbonsched.errors import InputError
from trainer import GreenTrainerCallback
from trainer.profiling.batch_form import BatchForm, loss_of, sizes_of
from trainer.profiling.profiler import make_counter, profile
from trainer.selection.cost_model import CostModel

torch.set_num_threads(1)


@pytest.mark.parametrize("name", sorted(HEADS))
def test_a_real_step_of_any_head_counts_what_the_profile_says(name: str) -> None:
    model, batch = HEADS[name]()
    found = profile(model, *sizes_of(batch, writes=False), form=BatchForm.of(model, batch, writes=False))
    names = [t.name for t in found.tensors]
    rng = random.Random(0)
    model.eval()
    for share in (1.0, 0.4, 0.1):
        selected = [n for n in names if rng.random() < share] or names[:1]
        for n, parameter in model.named_parameters():
            parameter.requires_grad_(n in selected)
        with make_counter() as count:
            loss_of(model(**batch)).backward()
        assert count.get_total_flops() == CostModel.of(found).flops(selected), selected


def test_rows_and_lengths_of_a_form_follow_the_shape() -> None:
    model, batch = HEADS["bert-many-labels"]()
    form = BatchForm.of(model, batch, writes=False)
    assert form is not None
    built = {name: tuple(x.shape) for name, x in form.build(2, 7).items()}
    assert built == {"input_ids": (2, 7), "attention_mask": (2, 7), "labels": (2, LENGTH)}


def test_what_the_forward_pass_does_not_take_is_left_out() -> None:
    model, _ = HEADS["llama-pairs"]()
    batch = text_batch(
        completion_mask=torch.ones(4, LENGTH), num_items_in_batch=torch.ones(1), texts=["a"] * 4
    )
    form = BatchForm.of(model, batch, writes=False)
    assert form is not None
    assert list(form.build(1, 3)) == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("batch", [{}, [{"prompt": "x"}], {"prompt": ["x"]}, {"labels": torch.ones(2, 3)}])
def test_what_is_no_batch_of_tensors_is_refused_in_one_line(batch: Any) -> None:
    with pytest.raises(
        InputError, match=r"^trainer: its batches hold no tensor that a model reads"
    ) as caught:
        sizes_of(batch, writes=False)
    assert "\n" not in str(caught.value)


def _relic(name: str) -> Any:
    import transformers

    made = {
        "ProphetNet": {
            "hidden_size": 16,
            "encoder_ffn_dim": 16,
            "decoder_ffn_dim": 16,
            "num_encoder_layers": 1,
        },
        "SwitchTransformers": {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 2, "num_experts": 2},
    }[name]
    heads = {"num_encoder_attention_heads": 2, "num_decoder_attention_heads": 2, "num_heads": 2}
    config = getattr(transformers, f"{name}Config")(vocab_size=31, **heads, **made)
    return getattr(transformers, f"{name}ForConditionalGeneration")(config)


@pytest.mark.parametrize("name", ["ProphetNet", "SwitchTransformers"])
def test_a_forward_pass_that_looks_at_values_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"^model: {name}.* cannot be profiled: ") as caught:
        profile(_relic(name), 1, 4)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


class _Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, batch: dict[str, Any]) -> None:
        self.rows = [{name: x[i % 4] for name, x in batch.items()} for i in range(16)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]


def _train(kind: type, model: Any, batch: dict[str, Any], out: Path, collate: Any) -> GreenTrainerCallback:
    from transformers import TrainingArguments

    args = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=2,
        num_train_epochs=1,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    callback = GreenTrainerCallback(rho=0.8)
    kind(model, args, train_dataset=_Rows(batch), data_collator=collate, callbacks=[callback]).train()
    return callback


def _stack(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.mark.parametrize("name", ["bert-classes", "bert-answers", "vit", "wav2vec2", "own-module"])
def test_a_trainer_of_any_head_keeps_to_its_plan(name: str, tmp_path: Path) -> None:
    from transformers import Trainer

    (done,) = _train(Trainer, *HEADS[name](), tmp_path, _stack).history
    assert 0.5 < done.rho_planned <= 0.8
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)


def test_preference_pairs_keep_to_their_plan_beside_a_reference_model(tmp_path: Path) -> None:
    """As TRL's DPOTrainer does it: twice the rows, no labels, and a pass of a frozen model in every step."""
    from transformers import Trainer

    model, batch = HEADS["llama-pairs"]()
    reference, _ = HEADS["llama-pairs"]()

    def log_probability(of: Any, inputs: dict[str, Any]) -> torch.Tensor:
        logits = of(**inputs).logits[:, :-1].log_softmax(-1)
        return logits.gather(2, inputs["input_ids"][:, 1:, None]).sum((1, 2))

    class Preferences(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                before = log_probability(reference, inputs)
            chosen, rejected = (log_probability(model, inputs) - before).chunk(2)
            return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()

    def twice(rows: list[dict[str, Any]]) -> dict[str, Any]:
        return _stack(rows + rows[::-1])

    callback = _train(Preferences, model, batch, tmp_path, twice)
    (done,) = callback.history
    assert callback.driver.method.profile.batch == 4
    assert 0.5 < done.rho_planned <= 0.8
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)


def test_tokens_with_a_label_each_need_no_form(tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path))
    assert BatchForm.of(model, text_batch(labels=torch.ones(4, 5).long()), writes=True) is None

"""Every kind of gradient checkpointing keeps planned ρ, in a Trainer of the user's own."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.trainers import plain_trainer
from transformers import AutoModelForCausalLM

from trainer import GreenTrainerCallback
from trainer.run import _CHECKPOINTING

torch.set_num_threads(1)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft asks by the old name
@pytest.mark.parametrize(
    ("kind", "user_calls", "reentrant"),
    [
        ("full", 0, True),
        ("lora", 0, True),
        ("full", 2, None),
        ("lora", 2, None),
        ("full", 0, False),
        ("lora", 1, True),
    ],
)
def test_every_kind_trains_at_its_planned_ratio(
    llama: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    user_calls: int,
    reentrant: bool | None,
) -> None:
    """Alone and with peft; input hooks by the user once more than one call takes away."""
    model = load(llama)
    if kind == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    for _ in range(user_calls):
        model.enable_input_require_grads()
    kwargs = None if reentrant is None else {"use_reentrant": reentrant}
    callback = GreenTrainerCallback(rho=0.75 if kind == "full" else 0.65)
    trainer = plain_trainer(
        model,
        llama,
        tmp_path,
        [callback],
        num_train_epochs=1,
        **{_CHECKPOINTING: True, f"{_CHECKPOINTING}_kwargs": kwargs},
    )
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with caplog.at_level(logging.WARNING, "trainer"):
        trainer.train()
    (done,) = callback.history
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= set(done.selected)
    if kind == "full":
        assert moved == set(done.selected)
    assert len([r for r in caplog.records if "use_reentrant" in r.getMessage()]) == (reentrant is True)
    # blocks are run again in the importance pass as in every step
    assert done.flops_recomputed > 0
    record = callback.segment
    steps = sum(span.recomputed_ratio * span.flops_full for span in record.spans)
    assert record.importance_recomputed == pytest.approx(done.flops_recomputed - steps)
    assert record.importance_recomputed > 0.2 * record.importance_flops, "a forward pass of the blocks"


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("reentrant", [None, True])
def test_a_trainer_may_switch_it_off_and_on_around_a_pass_without_gradients(
    llama: Path, tmp_path: Path, reentrant: bool | None
) -> None:
    """As TRL's DPOTrainer does around its reference model, in the importance pass, too."""
    from transformers import Trainer
    from trl.models.utils import disable_gradient_checkpointing

    kwargs = None if reentrant is None else {"use_reentrant": reentrant}

    class Switching(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
            with torch.no_grad(), disable_gradient_checkpointing(model, kwargs):
                model(**inputs)
            return super().compute_loss(model, inputs, *args, **more)

    callback = GreenTrainerCallback(rho=0.75)
    options = {_CHECKPOINTING: True, f"{_CHECKPOINTING}_kwargs": kwargs}
    plain_trainer(
        load(llama), llama, tmp_path, [callback], kind=Switching, num_train_epochs=1, **options
    ).train()
    (done,) = callback.history
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_sft_with_adapters_and_its_default_checkpointing_keeps_the_plan(llama: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from datasets import Dataset
    from peft import LoraConfig

    rows = Dataset.from_list([{"prompt": "red green", "completion": " blue " * n} for n in (2, 3, 4, 3)])
    args = trl.SFTConfig(
        str(tmp_path),
        per_device_train_batch_size=2,
        max_steps=2,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    assert args.gradient_checkpointing, "its default"
    callback = GreenTrainerCallback(rho=0.7, importance="spread")
    adapters = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    trl.SFTTrainer(str(llama), args, train_dataset=rows, peft_config=adapters, callbacks=[callback]).train()
    (done,) = callback.history
    assert done.flops_recomputed > 0
    assert done.rho_realised == pytest.approx(done.rho_planned, abs=0.01)

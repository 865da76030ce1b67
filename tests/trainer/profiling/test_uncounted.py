"""Work that cannot be counted is refused, or named once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama
from support.trainers import plain_trainer
from torch import nn
from transformers import AutoModelForCausalLM, Trainer

from carbonsched.errors import InputError
from trainer import GreenTrainerCallback
from trainer.profiling.uncounted import check_recurrent

torch.set_num_threads(1)


class Memory(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.head = nn.Sequential(kind(4, 4), nn.Linear(4, 2))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_on_a_board_is_refused_by_its_name(
    kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_recurrent(Memory(kind))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_recurrent(Memory(kind))  # it lies on the CPU
    with pytest.raises(InputError, match=rf"model: head\.0 is an nn\.{kind.__name__}, on a GPU one kernel"):
        check_recurrent(Memory(kind).to("meta"))


class Spectral(Trainer):  # type: ignore[misc]
    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return loss + 0 * torch.fft.rfft(model.lm_head.weight).abs().sum()


def test_what_no_formula_is_known_for_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tiny_llama(tmp_path / "llama", layers=1)
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    callback = GreenTrainerCallback(0.95, segment=2, importance="spread")
    plain_trainer(model, folder, tmp_path, [callback], kind=Spectral, num_train_epochs=1).train()
    said = [r.getMessage() for r in caplog.records if "not counted" in r.getMessage()]
    assert len(said) == 1
    assert "_fft_r2c" in said[0]

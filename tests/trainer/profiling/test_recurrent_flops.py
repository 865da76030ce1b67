"""Recurrent layers on a CPU: a profile counts what a real step does, whichever tensors are trained."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.profiling.batch_form import BatchForm
from trainer.profiling.profiler import make_counter, profile
from trainer.selection.cost_model import CostModel

torch.set_num_threads(1)


class Reader(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.first, self.memory = nn.Linear(8, 8), kind(8, 16, **options)
        self.last = nn.Linear(options.get("proj_size", 16) * (1 + options.get("bidirectional", False)), 3)

    def forward(self, features: Tensor, labels: Tensor) -> Any:
        found = self.memory(torch.relu(self.first(features)))[0]
        return nn.functional.cross_entropy(self.last(found[:, -1]), labels), found


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {"batch_first": True}),
        (nn.LSTM, {"num_layers": 2, "bidirectional": True}),
        (nn.LSTM, {"num_layers": 3, "bias": False, "batch_first": True}),
        (nn.LSTM, {"proj_size": 4}),  # step by step
        (nn.GRU, {"num_layers": 2, "bidirectional": True}),
        (nn.RNN, {}),
    ],
)
def test_a_profile_counts_what_a_real_step_does(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    model = Reader(kind, **options)
    batch = {"features": torch.randn(4, 6, 8), "labels": torch.zeros(4, dtype=torch.long)}
    measured = profile(model, 4, 8, form=BatchForm.of(model, batch, writes=False))
    costs, names, rng = CostModel.of(measured), [t.name for t in measured.tensors], random.Random(0)
    assert "memory.weight_hh_l0" in names
    for share in (1.0, 0.5, 0.25, 0.25, 0.1, 0.1):
        selected = [n for n in names if rng.random() < share] or [rng.choice(names)]
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in selected)
            parameter.grad = None
        with make_counter() as count:
            model(**batch)[0].backward()
        assert count.get_total_flops() == costs.flops(selected), selected

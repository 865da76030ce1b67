"""The published dynamic program as restated: optimal where nothing is rounded, over the budget where it is."""

import json
import random
from pathlib import Path

import pytest
import torch
from support.shapes import on_meta, smollm2_135m

from carbonsched.model.profile import Profile, TensorCost
from trainer.__main__ import main
from trainer.bench.select import BenchSelect, select_as_published
from trainer.profiling.profiler import profile
from trainer.selection.frontier import Selector

torch.set_num_threads(1)


def chain(seed: int) -> Profile:
    """A chain whose backward costs are whole thousandths of their sum."""
    rng = random.Random(seed)
    steps = [rng.randint(0, 9) for _ in range(10)]
    dw = [rng.choice([0, 5, 10]) for _ in range(9)]
    dw.append(1000 - sum(dw) - sum(steps))
    depths = [sum(steps[: k + 1]) for k in range(10)]
    return Profile(
        model="made",
        params=10,
        forward_flops=500,
        full_flops=1500,
        tensors=tuple(
            TensorCost(name=f"t{k}", numel=1, depth_flops=d, dw_flops=w)
            for k, (d, w) in enumerate(zip(depths, dw, strict=True))
        ),
        batch=1,
        seq=1,
    )


@pytest.mark.parametrize("seed", range(5))
def test_where_nothing_is_rounded_both_find_the_optimum(seed: int) -> None:
    p = chain(seed)
    rng = random.Random(seed)
    importance = {t.name: rng.uniform(0.1, 1) for t in p.tensors}
    f = Selector(p).frontier(importance)
    for rho in (0.36, 0.38, 0.4, 1.0):
        theirs = sum(importance[n] for n in select_as_published(p, importance, rho))
        assert theirs == pytest.approx(f.select(rho).importance if rho >= f.rho_floor else 0)
    assert select_as_published(p, importance, 0.2) == []


def test_rounding_down_takes_it_over_the_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "P.json"
    file.write_text(profile(on_meta(smollm2_135m()), 4, 128).model_dump_json())
    assert main(["bench", "select", "--profile", str(file), "--rho", "0.5", "--rho", "0.7"]) == 0
    answer = BenchSelect.parse(json.loads(capsys.readouterr().out))
    assert answer.exact
    assert answer.tensors == 272
    for at in answer.at:
        assert at.ours_rho <= at.rho < (at.published_rho or 0)
        assert at.ours_there is not None
        assert at.ours_there >= at.published_importance

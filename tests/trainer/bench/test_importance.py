"""Predicted against actual drops on a tiny model; and the rank statistics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.models import tiny_llama, tiny_spec, word_data

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from trainer.__main__ import main
from trainer.bench.importance import (
    PREDICTORS,
    _Bench,
    bench_importance,
    partial_spearman,
    spearman,
    table,
)

torch.set_num_threads(1)

numbers = st.lists(st.integers(-4, 4).map(float), min_size=4, max_size=30)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("bench")
    return tiny_spec(tiny_llama(folder / "model", layers=1), word_data(folder / "data"))


@given(numbers, st.randoms())
def test_rank_correlation_is_that_of_ranks_and_0_where_there_is_none(x: list[float], rng: Any) -> None:
    y = [rng.choice([a, 0.0, rng.random()]) for a in x]
    if len(set(x)) > 1 and len(set(y)) > 1:
        assert spearman(x, y) == pytest.approx(np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1])
    else:
        assert spearman(x, y) == 0


def test_size_held_fixed_leaves_what_size_does_not_tell() -> None:
    """By the residuals of both ranks on the rank of what is held fixed."""
    rng = np.random.default_rng(0)
    size = rng.random(200)
    x, y = size + rng.random(200), size + rng.random(200)
    assert spearman(x, y) > 0.3
    assert abs(partial_spearman(x, y, size)) < 0.15
    a, b, z = (stats.rankdata(v) for v in (x, y, size))
    rest = [v - np.polyval(np.polyfit(z, v, 1), z) for v in (a, b)]
    assert partial_spearman(x, y, size) == pytest.approx(np.corrcoef(rest)[0, 1])
    assert partial_spearman(size, y, size) == 0


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "optimizer", ["adamw", pytest.param("sgd", marks=SLOW), pytest.param("adafactor", marks=SLOW)]
)
def test_importance_foretells_on_a_tiny_model(spec: dict[str, Any], optimizer: str) -> None:
    """All training rows in each batch, and held out the same ones: nothing is left to chance."""
    own = str(Path(spec["data"]["name_or_path"]) / "train.jsonl")
    parsed = JobSpec.parse({**spec, "data": {**spec["data"], "validation": own}})
    train = parsed.train.model_copy(update={"optimizer": optimizer, "batch_size": 32, "lr": 1e-2})
    said: list[str] = []
    job = parsed.model_copy(update={"train": train})
    found = bench_importance(job, tensors=8, steps=3, lr=1e-3, held_out=32, say=said.append)
    assert [(s.when, s.steps) for s in found.stages] == [("before", 0), ("mid", 3)]
    assert found.stages[1].loss < found.stages[0].loss
    for stage in found.stages:
        assert [(p.importance, p.batches) for p in stage.predictors] == list(PREDICTORS)
        by_name = {f"{p.importance}@{p.batches}": p for p in stage.predictors}
        update = by_name["update@1"]
        assert update.spearman > 0.95
        assert update.low < update.spearman <= update.high
        assert update.reached == pytest.approx(1, abs=0.05)
        assert abs(by_name["random@0"].spearman) < update.spearman
        assert by_name["random@0"].flops == 0 < update.flops < by_name["update@2"].flops
        assert by_name["update@1"].age == stage.steps
        assert stage.probes[3].values["size@0"] == stage.probes[3].numel
    assert any("tensor 8/8" in line for line in said)
    assert table(found).count("| update | 1 |") == 2


def test_every_tensor_and_its_moments_are_put_back(spec: dict[str, Any]) -> None:
    bench = _Bench(JobSpec.parse(spec), 4)
    bench.train(2, lambda line: None)
    before = [p.detach().clone() for p in bench.weights.values()]
    moments = {n: bench.optimizer.state[p]["exp_avg"].clone() for n, p in bench.weights.items()}
    loss = bench.loss()
    names = bench.draw(6)
    for name, gradient in bench.gradients(names).items():
        assert bench.loss_after_step(name, gradient, 0.1) != loss
    assert all(torch.equal(a, b) for a, b in zip(before, bench.weights.values(), strict=True))
    assert all(torch.equal(m, bench.optimizer.state[bench.weights[n]]["exp_avg"]) for n, m in moments.items())
    assert {int(s["step"]) for s in bench.optimizer.state.values()} == {2}
    assert bench.loss() == loss
    assert all(group["lr"] == bench.part.lr for group in bench.optimizer.param_groups)


def test_from_the_command_line(spec: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--model", spec["model"]["name_or_path"], "--data", spec["data"]["name_or_path"]]
    options = ["--tensors", "5", "--steps", "0", "--seq", "16", "--held-out", "2", "--json"]
    assert main(["bench", "importance", *where, *options]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [s["when"] for s in document["stages"]] == ["before"]
    assert "/" not in document["model"]
    assert (document["seq"], document["held_out_rows"]) == (16, 2)
    assert "| update | 1 |" in err
    assert main(["bench", "importance", *where, "--tensors", "3"]) == 2
    assert "--tensors" in capsys.readouterr().err


def test_without_held_out_rows_there_is_nothing_to_compare_with(spec: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes((Path(spec["data"]["name_or_path"]) / "train.jsonl").read_bytes())
    alone = JobSpec.parse({**spec, "data": {**spec["data"], "name_or_path": str(tmp_path)}})
    with pytest.raises(InputError, match=r"data\.validation.*no held-out rows"):
        bench_importance(alone, tensors=5, steps=0, lr=1e-3, held_out=4)

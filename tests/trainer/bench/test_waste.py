"""What stock padding and logits cost: counted over real passes, with the same loss and gradient without them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import tiny_llama, tiny_t5, word_rows, write_jsonl

from carbonsched.model.job import JobSpec
from trainer.__main__ import main
from trainer.bench.waste import _Bench
from trainer.profiling.profiler import make_counter

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [word_rows(1, seed=k, length=[4, 30, 9, 17][k % 4])[0] for k in range(18)]
    return write_jsonl(tmp_path_factory.mktemp("data") / "train.jsonl", rows)


def test_it_answers_as_the_contract_says(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_llama(tmp_path / "llama", layers=1)
    argv = [
        "bench",
        "waste",
        "--model",
        str(model),
        "--data",
        str(data),
        "--batch",
        "4",
        "--max-length",
        "32",
    ]
    assert main([*argv, "--threads", "1"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    keys = "rows stock_flops flops padding_flops head_flops loss_stock loss grad_norm_stock grad_norm"
    assert set(keys.split()) <= found.keys()
    assert found["rows"] == 18
    assert found["stock_flops"] == pytest.approx(
        found["flops"] + found["padding_flops"] + found["head_flops"], rel=1e-12
    )
    assert found["padding_flops"] > 0
    assert found["head_flops"] > 0
    assert found["loss"] == pytest.approx(found["loss_stock"], rel=1e-6)
    assert found["grad_norm"] == pytest.approx(found["grad_norm_stock"], rel=1e-5)
    assert found["peak_memory_bytes"] > 0
    assert found["peak_memory_bytes_stock"] > 0
    assert "GB stock at most" in captured.err
    assert "of stock" in captured.err
    assert "ours: batch 5/5" in captured.err
    assert main([*argv, "--rows", "5", "--count-only", "--quiet"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["rows"], found["loss"], found["grad_norm_stock"]) == (5, None, None)
    assert captured.err == ""


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_flops_are_those_that_the_passes_run(data: Path, tmp_path: Path, kind: str) -> None:
    model = (tiny_llama if kind == "llama" else tiny_t5)(tmp_path / kind, layers=1)
    spec: dict[str, Any] = {
        "name": "waste",
        "model": {"name_or_path": str(model)},
        "data": {"name_or_path": str(data), "max_length": 24},
        "carbon": {"budget_share": 1.0},
    }
    bench = _Bench(JobSpec.parse(spec), 10)
    found = bench.count()
    for what, batches, head, counted in (
        ("stock", bench.stock, None, found.stock_flops),
        ("ours", bench.grouped, bench.head, found.flops),
        ("ours", bench.grouped, None, found.flops + found.head_flops),
    ):
        with make_counter() as count:
            bench.measure(what, batches, head, lambda line: None)
        assert count.get_total_flops() == pytest.approx(counted, rel=1e-9)

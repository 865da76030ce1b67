"""Waste of a job: what a stock Trainer would have computed on the same rows beyond it."""

from pathlib import Path

import pytest
import torch
from support.models import job_folder, tiny_llama, tiny_spec, tiny_t5, word_rows, write_jsonl
from support.steer import always, of, train

from carbonsched.model.job import JobSpec
from trainer.bench.waste import _Bench
from trainer.profiling.profiler import make_counter

torch.set_num_threads(1)


@pytest.mark.parametrize(("kind", "grouped"), [("llama", False), ("t5", True)])
def test_waste_is_what_stock_batches_of_the_same_rows_compute_beyond(
    kind: str, grouped: bool, data: Path, tmp_path: Path
) -> None:
    model = (tiny_llama if kind == "llama" else tiny_t5)(tmp_path / kind, layers=1)
    rows = [word_rows(1, seed=k, length=[3, 11, 5, 8][k % 4])[0] for k in range(10)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    spec = tiny_spec(
        model,
        tmp_path / "train.jsonl",
        data={"pad": "longest"},
        train={
            "method": "full",
            "group_by_length": grouped,
            "epochs": 1,
            "batch_size": 4 if grouped else 10,
        },
    )
    job = job_folder(tmp_path / "job", spec)
    assert train(job, always(1.0)) == "done"
    (done,) = of(job, "segment_done")
    waste = done["waste"]
    left = waste["stock_flops"] - waste["padding_flops"] - waste["head_flops"]
    assert left == pytest.approx(done["flops_full"], rel=1e-12)
    assert done["waste_unknown"] is None
    bench = _Bench(JobSpec.parse(spec), None)
    if not grouped:  # one batch: there is but one order, and a CPU pads it as stock does
        same = bench.count()
        assert (waste["orders"], waste["padding_flops"]) == (0, 0)
        assert waste["head_flops"] == pytest.approx(same.head_flops, rel=1e-9)
        assert waste["stock_flops"] == pytest.approx(same.stock_flops, rel=1e-9)
        return
    assert waste["orders"] == 16
    assert waste["padding_flops"] > 0
    with make_counter() as count:  # a stock Trainer's own passes, in some of the orders
        for seed in range(8):
            order = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()
            bench.measure("stock", [order[:4], order[4:8], order[8:]], None, lambda line: None)
    off = 4 * waste["spread_flops"] / 8**0.5
    assert waste["stock_flops"] == pytest.approx(count.get_total_flops() / 8, abs=off)

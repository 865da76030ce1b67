"""The walk of the learning rate, the order of runs, and a small benchmark run twice and cut short between."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bench import result
from support.models import tiny_llama, tiny_spec, word_data

from carbonsched.model.job import JobSpec
from trainer.bench.cell import Variant
from trainer.bench.result import ResultStore
from trainer.bench.runner import BenchPlan, next_cells, walk

BASE = JobSpec.parse(tiny_spec(Path("model"), Path("data")))


@settings(max_examples=30, deadline=None)
@given(valley=st.floats(-4.4, 4.4))
def test_the_walk_ends_at_the_valley_with_both_sides_seen(
    valley: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = ResultStore(tmp_path_factory.mktemp("walk"))
    variant = Variant("random", 0.5)
    plan = BenchPlan(BASE, (variant,), (3, 4), {variant.name: 1e-4}, tune=True)
    runs = 0
    while True:
        best, wanted = walk(plan, variant, store)
        if not wanted:
            break
        for cell in wanted:
            assert cell.seed == 3
            store.write(cell, result(cell, abs(math.log2(cell.lr / 1e-4) - valley)))
            runs += 1
    assert best is not None
    assert abs(math.log2(best / 1e-4) - valley) <= 0.51
    assert runs <= math.ceil(abs(valley)) + 3
    # the other seed, at the best rate, and nothing else
    assert [(c.lr, c.seed) for c in next_cells(plan, store)] == [(best, 4)]


def test_without_tuning_all_variants_run_seed_by_seed(tmp_path: Path) -> None:
    variants = (Variant("full", None), Variant("random", 0.5))
    plan = BenchPlan(BASE, variants, (0, 1), {"full": 1e-4, "random@0.5": 1e-4}, tune=False)
    due = [(c.variant.method, c.seed) for c in next_cells(plan, ResultStore(tmp_path))]
    assert due == [("full", 0), ("random", 0), ("full", 1), ("random", 1)]


@pytest.mark.slow
def test_a_benchmark_that_was_killed_goes_on_and_ends_in_results_a_table_and_plots(tmp_path: Path) -> None:
    model, data = tiny_llama(tmp_path / "model"), word_data(tmp_path / "data")
    job = tmp_path / "job.json"
    spec = tiny_spec(model, data) | {
        "evaluate": {"test": "validation.jsonl", "limit": 4, "metrics": ["rouge"]}
    }
    job.write_text(json.dumps(spec))
    out = tmp_path / "out"
    argv = [
        sys.executable,
        "-m",
        "trainer",
        "bench",
        "--job",
        str(job),
        "--method",
        "full",
        "--method",
        "random",
    ]
    argv += ["--rho", "0.8", "--seed", "0", "--seed", "1", "--out", str(out), "--json"]
    first = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    while not list(out.glob("cells/*/result.json")):
        assert first.poll() is None
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    events = [file.with_name("job") / "events.jsonl" for file in out.glob("cells/*/result.json")]
    kept = {file: file.stat().st_mtime_ns for file in events}

    second = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert all(file.stat().st_mtime_ns == at for file, at in kept.items())
    document = json.loads(second.stdout)
    assert document == json.loads((out / "results.json").read_text())
    assert [line["variant"] for line in document["lines"]] == ["full", "random@0.8"]
    full, chosen = document["lines"]
    assert full["seeds"] == chosen["seeds"] == [0, 1]
    assert full["rho_realised"] == pytest.approx(1.0)
    assert chosen["rho_realised"] <= 0.8
    assert full["time_ratio"] == 1.0
    assert full["test_nll"] is not None
    assert set(full["metrics"]) == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert chosen["gaps"][0]["against"] == "full"
    assert not list(out.glob("cells/*/job/output")), "models are not kept once they are tested"
    table = (out / "results.md").read_text()
    assert "| random@0.8 |" in table
    assert "kJ, estimated" in table or "counter" in full["joules_method"]
    assert "<svg" in (out / "quality-flops.svg").read_text()

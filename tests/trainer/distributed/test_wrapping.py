"""Several ranks, as real processes over gloo: they stay one model, the one that a single process would have trained."""

import copy
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from support.models import job_folder, tiny_spec, word_data, word_rows
from support.ranks import ROWS, SCENARIOS, torchrun, train
from support.steer import FakeDaemon, directive, of
from torch._dynamo.backends.registry import lookup_backend
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler
from transformers import AutoModelForCausalLM

from carbonsched.model.job import DataPart, ModelPart
from trainer.data.encoding import TextEncoder
from trainer.data.field_layouts import Row
from trainer.data.sampling import coming_batches, drawn_rows
from trainer.importance.measure import measure
from trainer.job.job_dir import JobDir
from trainer.job.segment import Schedule
from trainer.run import run_job

torch.set_num_threads(1)
WORKER = Path(__file__).parents[2] / "support" / "ranks.py"
ROUNDING = 1e-11
"""Of float64 weights near 0.1; norms are taken in float32 on both sides."""


@pytest.fixture(scope="module")
def outcomes(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Of every scenario, by rank: one launch for all, since starting takes longer than training."""
    out = tmp_path_factory.mktemp("ranks")
    done = torchrun(WORKER, "train", out, llama, *SCENARIOS)
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        name: [torch.load(out / f"{name}-{rank}.pt", weights_only=False) for rank in (0, 1)]
        for name in SCENARIOS
    }


def alone(llama: Path, out: Path, scenario: str) -> dict[str, Any]:
    options = copy.deepcopy(SCENARIOS[scenario])
    options.get("args", {}).pop("fsdp", None)
    return train(llama, out, 1, **options)


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).detach().abs().max()) for name in one)


# ---- a stock Trainer with the callback


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_ranks_stay_one_model(outcomes: dict[str, list[dict[str, Any]]], scenario: str) -> None:
    """Bit for bit, over selections that freeze and unfreeze."""
    first, second = outcomes[scenario]
    assert first["sharded"] == scenario.startswith("fsdp2")
    assert furthest(first["weights"], second["weights"]) == 0.0
    for one, other in zip(first["history"], second["history"], strict=True):
        for fact in ("selected", "rho_planned", "rho_realised", "flops", "flops_full", "loss"):
            assert one[fact] == other[fact]
    assert first["importance"] == second["importance"]
    if SCENARIOS[scenario].get("method") == "random":
        chosen = [set(done["selected"]) for done in first["history"]]
        unfrozen = [later - earlier for earlier, later in pairwise(chosen)]
        assert all(unfrozen), "every selection trains something that stood still before"


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "ddp-importance"])
def test_several_ranks_train_as_one_process_would(
    outcomes: dict[str, list[dict[str, Any]]], llama: Path, tmp_path: Path, scenario: str
) -> None:
    """With the same batch of all: weights, selections and FLOPs, clipping and accumulation included."""
    ranks, one = outcomes[scenario][0], alone(llama, tmp_path, scenario)
    assert furthest(ranks["weights"], one["weights"]) < ROUNDING
    for several, single in zip(ranks["history"], one["history"], strict=True):
        assert sorted(several["selected"]) == sorted(single["selected"])
        for fact in ("rho_planned", "rho_realised", "flops", "flops_full"):
            assert several[fact] == pytest.approx(single[fact], rel=1e-12)
    for several, single in zip(ranks["importance"], one["importance"], strict=True):
        # sharded gradients are those of the batch of all; only float32 sums in another order differ
        assert several == pytest.approx(single, rel=1e-5)


@pytest.mark.slow
def test_replicas_share_their_importances(outcomes: dict[str, list[dict[str, Any]]], llama: Path) -> None:
    """Under DDP each rank measures rows of its own, and all select by the mean."""
    part = DataPart(name_or_path="x", max_length=32)
    encoder = TextEncoder.of(ModelPart(name_or_path=str(llama)), part)
    encoded = encoder.encode([Row(**row) for row in word_rows(ROWS)])
    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager", dtype=torch.float64)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    chosen = [drawn_rows(ROWS, 4, 1, seed=0, rank=rank)[0] for rank in (0, 1)]
    assert not set(chosen[0]) & set(chosen[1])
    each = [
        measure(
            model,
            optimizer,
            [encoder.collate([encoded[i].dump() for i in rows])],
        )
        for rows in chosen
    ]
    mean = {name: (each[0].values[name] + each[1].values[name]) / 2 for name in each[0].values}
    assert outcomes["ddp-importance"][0]["importance"][0] == pytest.approx(mean, rel=1e-5)
    flops = outcomes["ddp-importance"][0]["history"][0]["flops"]
    full = outcomes["ddp-importance"][0]["history"][0]["flops_full"]
    assert sum(each[0].flops + each[1].flops) == pytest.approx(full / 4), (
        "the pass of each rank is a full step of its own"
    )
    assert flops / full <= 0.8


# ---- a job under torchrun


def steered(llama: Path, data: Path, job: Path, **train: Any) -> Path:
    spec = tiny_spec(
        llama, data, train={"method": "random", "segment": 4, "epochs": 2, "batch_size": 4, **train}
    )
    return job_folder(job, spec)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_job_of_two_ranks_obeys_resumes_and_ends(llama: Path, tmp_path: Path, parallel: str) -> None:
    """Told to stop after a segment and started again, it ends with the weights of a single uninterrupted process."""
    data = word_data(tmp_path / "data")
    job = steered(llama, data, tmp_path / "job", parallel=parallel)

    def answer(event: dict[str, Any]) -> dict[str, Any] | None:
        if event["event"] != "segment_ready":
            return None
        if event["k"] == 1 and len(of(job, "started")) == 1:
            return directive(1, action="stop", reason="enough for now")
        return directive(event["k"], 0.7 + 0.1 * event["k"])

    command = ("-m", "trainer", "run", job) if parallel == "ddp" else (WORKER, "job", job)
    with FakeDaemon(job, answer):
        done = torchrun(*command)
    assert done.returncode == 0, done.stderr[-4000:]
    assert [(e["reason"], e["step"]) for e in of(job, "finished")] == [("stopped", 4)]
    with FakeDaemon(job, answer):
        done = torchrun(*command)
    assert done.returncode == 0, done.stderr[-4000:]
    assert [e["reason"] for e in of(job, "finished")] == ["stopped", "done"]
    assert len(of(job, "started")) == 2, "one rank speaks for all"
    assert [e["k"] for e in of(job, "segment_done")] == [0, 1]

    single = steered(llama, data, tmp_path / "single", batch_size=8)
    with FakeDaemon(
        single, lambda e: directive(e["k"], 0.7 + 0.1 * e["k"]) if e["event"] == "segment_ready" else None
    ):
        assert run_job(JobDir(single), lambda: False) == "done"
    for several, one in zip(of(job, "segment_done"), of(single, "segment_done"), strict=True):
        assert sorted(several["selected"]) == sorted(one["selected"])
        assert several["flops_full"] == pytest.approx(one["flops_full"])
        assert several["rho_realised"] == pytest.approx(one["rho_realised"])
        assert several["loss"] == pytest.approx(one["loss"], abs=1e-4)
    trained = [
        dict(AutoModelForCausalLM.from_pretrained(j / "output").named_parameters()) for j in (job, single)
    ]
    assert furthest(*trained) < 1e-4


# ---- torch.compile


@pytest.mark.slow
def test_compiled_anew_at_each_selection(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten selections, more than the eight after which torch would go on uncompiled; the same losses as without."""
    graphs: list[int] = []
    runs: list[int] = []
    eager = lookup_backend("eager")

    def backend(graph: Any, inputs: Any) -> Any:
        compiled = eager(graph, inputs)
        graphs.append(1)

        def run(*args: Any) -> Any:
            runs.append(1)
            return compiled(*args)

        return run

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: original(model, backend=backend))
    options = {"method": "random", "rho": 0.65, "segment": 2}
    plain = train(llama, tmp_path / "plain", 1, **options, args={"max_steps": 20})
    with warnings.catch_warnings(), caplog.at_level("WARNING", "torch._dynamo"):
        args = {"max_steps": 20, "torch_compile": True, "torch_compile_backend": "aot_eager"}
        compiled = train(llama, tmp_path / "compiled", 1, **options, args=args)
    assert (len(graphs), len(runs)) == (10, 10), (
        "a graph for each selection, run in each step that is not counted"
    )
    assert not [r for r in caplog.records if "recompile_limit" in r.getMessage()]
    assert furthest(plain["weights"], compiled["weights"]) < ROUNDING
    for one, other in zip(plain["history"], compiled["history"], strict=True):
        assert one["flops"] == other["flops"]
        assert one["loss"] == pytest.approx(other["loss"])


# ---- without processes


def test_only_the_first_rank_writes_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank, quiet in (("0", False), ("1", True)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        assert JobDir(tmp_path).quiet == quiet
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not JobDir(tmp_path).quiet


@given(rows=st.integers(1, 40), size=st.integers(1, 5), world=st.integers(1, 4), drop=st.booleans())
def test_the_batches_of_each_rank_are_foreseen(rows: int, size: int, world: int, drop: bool) -> None:
    """As accelerate deals them out, the rows that fill up an uneven end included."""
    for rank in range(world):
        whole = BatchSampler(SequentialSampler(range(rows)), size, drop)
        loader = DataLoader(list(range(rows)), batch_sampler=BatchSamplerShard(whole, world, rank))
        dealt = [batch.tolist() for batch in loader]
        if dealt:
            schedule = Schedule(len(dealt), len(dealt), len(dealt))
            assert coming_batches(loader, schedule, 0, len(dealt), 1) == dealt


@given(rows=st.integers(1, 60), size=st.integers(1, 8), world=st.integers(1, 5))
def test_ranks_draw_other_rows_while_there_are_any(rows: int, size: int, world: int) -> None:
    size = min(size, rows)
    drawn = [drawn_rows(rows, size, 2, seed=5, rank=rank) for rank in range(world)]
    for batch in range(2):
        taken = [row for rank in drawn for row in rank[batch]]
        assert len(set(taken)) == min(size * world, rows)

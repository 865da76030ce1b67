"""Settings that do not go together are refused by JobSpec itself: one line that names the field and the fix."""

from pathlib import Path
from typing import Any

import pytest
from support.models import tiny_spec

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec


def parse(**parts: dict[str, Any]) -> JobSpec:
    return JobSpec.parse(tiny_spec(Path("model"), Path("data"), **parts))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"train": {"method": "prefix", "gradient_checkpointing": True}}, "train.gradient_checkpointing: a prefix travels in the cache, which checkpointing switches off; set it to false, or use method lora"),
        ({"train": {"method": "dropbp", "compile": True}}, "train.compile: each step drops other branches: every one would be compiled; set it to false"),
        ({"train": {"method": "full", "skip_earliest": 0.2}}, "train.skip_earliest: method 'full' chooses no tensors; leave it out"),
        ({"train": {"gradient_share": 0.3}}, "train.gradient_share: method 'greentrainer' takes no fixed share of tokens; leave it out, or use method tokens"),
        ({"train": {"method": "tokens", "cache": "disk"}}, "train.cache: keeps activations of whole rows, method 'tokens' runs them in two parts; leave it out"),
        ({"train": {"method": "tokens", "compile": True}}, "train.compile: each batch is cut elsewhere: every one would be compiled; set it to false"),
        ({"train": {"method": "dropbp", "skip_earliest": 0.2}}, "train.skip_earliest: method 'dropbp' chooses no tensors; leave it out"),
        ({"train": {"compile": True, "cache": "memory"}}, "train.cache: does not go with compile = true; leave one of them out"),
        ({"train": {"processes": 2}}, "train.processes: share no work with parallel = 'none'; set it to 'ddp' or 'fsdp2'"),
        ({"train": {"parallel": "ddp", "processes": 1}}, "train.processes: must be 2 to 64, is 1"),
        ({"train": {"parallel": "fsdp2", "compile": True}}, "train.compile: cannot be had with parallel = 'fsdp2'; change it, or set parallel = 'ddp'"),
        ({"train": {"parallel": "fsdp2", "method": "lora"}}, "train.method: cannot be had with parallel = 'fsdp2'; change it, or set parallel = 'ddp'"),
        ({"train": {"parallel": "fsdp2", "early_stop_patience": 1}}, "train.early_stop_patience: cannot be had with parallel = 'fsdp2'; change it, or set parallel = 'ddp'"),
        ({"train": {"parallel": "fsdp2", "cache": "disk"}}, "train.cache: cannot be had with parallel = 'fsdp2'; change it, or set parallel = 'ddp'"),
        ({"train": {"parallel": "fsdp2", "stale_state": "drop"}}, "train.stale_state: cannot be had with parallel = 'fsdp2'; change it, or set parallel = 'ddp'"),
        ({"train": {"early_stop_patience": 2}, "data": {"name_or_path": "rows.jsonl"}}, "train.early_stop_patience: there are no held-out rows; set data.validation, or leave it out"),
        ({"train": {"importance": "noise", "batch_size": 2}}, "train.importance: 'noise' takes a spread from 3 rows; set importance_batches = 3 or more"),
        ({"model": {"dtype": "fp16"}}, "model.dtype: method 'greentrainer' cannot train fp16 weights: AdamW's epsilon and second moments vanish in them; set it to \"bf16\", or to \"fp32\" with train.autocast = \"bf16\"; adapters (method lora) may stand on fp16 weights"),
        ({"carbon": {"rho_min": 0.9, "rho_max": 0.5}}, "carbon.rho_min: 0.9 is above rho_max 0.5; swap or widen them"),
        ({"carbon": {"weight": 2.0}}, "carbon.weight: is for jobs that share a pool; add pool or drop it"),
        ({"carbon": {"rho_mean": 0.7}}, 'carbon.rho_mean: is for min-carbon; add objective = "min-carbon" or drop it'),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(parts: dict[str, dict[str, Any]], says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(**parts)
    assert str(caught.value) == says
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("method", ["lora", "prefix", "greentrainer+lora"])
def test_adapters_go_with_fp16_for_they_are_kept_in_fp32(method: str) -> None:
    assert parse(model={"dtype": "fp16"}, train={"method": method}).model.dtype == "fp16"


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_other_weights_are_trained_by_every_method(dtype: str) -> None:
    assert parse(model={"dtype": dtype}).model.dtype == dtype


def test_held_out_rows_may_be_named_or_lie_in_the_folder() -> None:
    assert parse(train={"early_stop_patience": 2})
    held = {"name_or_path": "rows.jsonl", "validation": "held.jsonl"}
    assert parse(train={"early_stop_patience": 2}, data=held)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("carbon", "budget_g", 1e308),
        ("carbon", "budget_g", 5e-324),
        ("carbon", "budget_rate_g_per_h", 1e308),
        ("carbon", "weight", 1e308),
        ("carbon", "weight", 5e-324),
        ("carbon", "deadline", 1e308),
        ("carbon", "deadline", 10**400),
        ("carbon", "deadline", "99999999999999999999h"),
        ("train", "epochs", 10**400),
        ("train", "max_steps", 2**63),
        ("train", "lr", 1e308),
        ("train", "seed", -1),
        ("train", "seed", 2**32),
        ("train", "threads", 100_000_000_000),
        ("data", "max_length", 2**63),
        ("model", "name_or_path", "a\ud83d"),
        ("data", "name_or_path", "a\0b"),
        ("data", "source", "\udcff"),
    ],
)
def test_what_breaks_a_sum_or_a_file_name_later_is_refused_by_name(
    part: str, key: str, value: object
) -> None:
    given = {"weight": {"budget_g": None, "pool": "lab"}, "budget_rate_g_per_h": {"budget_g": None}}.get(
        key, {}
    )
    with pytest.raises(InputError, match=rf"{part}\.{key}"):
        parse(**{part: given | {key: value}})


def test_a_job_accepted_earlier_keeps_the_adapters_that_it_had() -> None:
    """Every key is in spec.json: there `null` meant the query and value projections, which is no default any more."""
    recorded = JobSpec.parse(tiny_spec(Path("m"), Path("d"), train={"method": "lora", "lora_targets": None}))
    assert JobSpec.parse(recorded.dump()).train.lora_targets is None
    assert (
        JobSpec.parse(tiny_spec(Path("m"), Path("d"), train={"method": "lora"})).train.lora_targets
        == "all-linear"
    )


@pytest.mark.parametrize(
    ("train", "carbon", "refused"),
    [
        ({}, {"budget_share": 0.5}, "carbon.budget_share: is a share of all steps"),
        ({}, {"budget_rate_g_per_h": 5.0}, "carbon.budget_rate_g_per_h: does not go with train.scheduler"),
        ({}, {"pool": "night"}, "carbon.pool: does not go with"),
        ({}, {"objective": "min-carbon", "rho_mean": 0.5, "deadline": "1h"}, "carbon.objective: does not go"),
        ({"early_stop_patience": 2}, {"budget_g": 5.0}, "train.early_stop_patience: would end a job"),
        ({"cooldown": 0.01}, {"budget_g": 5.0}, "train.cooldown"),
    ],
)
def test_what_does_not_go_with_steps_as_a_dial(
    train: dict[str, object], carbon: dict[str, object], refused: str
) -> None:
    job = {"name": "a", "model": {"name_or_path": "m"}, "data": {"name_or_path": "d"}}
    with pytest.raises(InputError) as told:
        JobSpec.parse(job | {"train": {"scheduler": "budget", **train}, "carbon": carbon})
    assert refused in str(told.value)


def test_epochs_are_one_unless_given_and_no_bound_where_steps_are_a_dial() -> None:
    job = {
        "name": "a",
        "model": {"name_or_path": "m"},
        "data": {"name_or_path": "d"},
        "carbon": {"budget_g": 9},
    }
    found = [
        JobSpec.parse(job | {"train": part}).train
        for part in ({}, {"scheduler": "budget"}, {"scheduler": "budget", "epochs": 3})
    ]
    assert [(part.epochs, part.bounded) for part in found] == [(1, True), (None, False), (3, True)]

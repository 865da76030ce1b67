"""How a run is written down, and the job that it becomes."""

from pathlib import Path

import pytest
from support.models import tiny_spec

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from trainer.bench.cell import Cell, Variant, parse_variants

BASE = JobSpec.parse(tiny_spec(Path("model"), Path("data")))


def test_a_method_stands_for_one_variant_at_each_ratio() -> None:
    assert parse_variants("random", [0.5, 0.6]) == [Variant("random", 0.5), Variant("random", 0.6)]
    assert parse_variants("random@0.7", [0.5, 0.6]) == [Variant("random", 0.7)]
    assert parse_variants("full", [0.5, 0.6]) == [Variant("full", None)]


def test_settings_of_the_train_table_come_behind_it_and_into_the_job() -> None:
    (variant,) = parse_variants("greentrainer@0.5,max_steps=20,scheduler=cosine", [])
    assert variant.name == "greentrainer@0.5,max_steps=20,scheduler=cosine"
    spec = Cell(variant, 3e-4, 7).spec(BASE)
    assert (spec.train.method, spec.train.max_steps, spec.train.scheduler) == ("greentrainer", 20, "cosine")
    assert (spec.train.lr, spec.train.seed, spec.carbon.rho_start) == (3e-4, 7, 0.5)
    assert spec.data == BASE.data


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("random", "--method"),
        ("random@half", "'half'"),
        ("full,lr", "'lr'"),
        ("nonsense@0.5", "nonsense"),
        ("full,colour=red", "colour"),
    ],
)
def test_what_cannot_be_run_is_one_line_that_says_so(text: str, said: str) -> None:
    def run() -> None:
        for variant in parse_variants(text, []):
            Cell(variant, 1e-4, 0).spec(BASE)

    with pytest.raises(InputError, match=said):
        run()

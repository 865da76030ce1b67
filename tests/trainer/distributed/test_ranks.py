"""The agreement of ranks, here of a single one; several are in test_wrapping.py, as real processes."""

import math
from typing import Any

import pytest

from carbonsched.errors import InputError
from carbonsched.model.job import TrainPart
from trainer.distributed.ranks import Ranks, check_world, world_of
from trainer.job.directives import Stopped


def test_one_process_agrees_with_itself() -> None:
    alone = Ranks()
    assert alone.main
    assert alone.sum([1.5, math.pi]) == [1.5, math.pi]
    assert alone.gather("mine") == ["mine"]
    assert (alone.any(False), alone.any(True)) == (False, True)
    assert alone.offset_seed(7) == 7
    with pytest.raises(Stopped, match="by signal"):
        alone.broadcast(lambda: (_ for _ in ()).throw(Stopped("by signal")))


@pytest.mark.parametrize(
    ("world", "train", "message"),
    [
        ("2", {}, "train.parallel: is 'none', but 2 processes were started; set it to 'ddp' or 'fsdp2'"),
        (
            "1",
            {"parallel": "ddp"},
            "train.processes: is missing, 'ddp' takes several; give how many.*or start them with torchrun",
        ),
        (
            "3",
            {"parallel": "ddp", "processes": 2},
            "train.processes: is 2, but 3 were started; start as many, or leave it out",
        ),
    ],
)
def test_processes_that_the_spec_does_not_ask_for(
    monkeypatch: pytest.MonkeyPatch, world: str, train: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(InputError, match=message):
        check_world(TrainPart(**train))


def test_before_any_process_is_started_the_spec_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    two = TrainPart(parallel="ddp", processes=2)
    check_world(two)
    assert (world_of(two), world_of(TrainPart())) == (2, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert world_of(TrainPart(parallel="ddp")) == 4

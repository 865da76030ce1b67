"""The agreement of ranks, here of a single one; several are in test_wrapping.py, as real processes."""

import math
from typing import Any

import pytest

from carbonsched.errors import InputError
from carbonsched.model.job import TrainPart
from trainer.distributed.ranks import Ranks, check_world
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
            "train.parallel: 'ddp' takes several processes.*torchrun --nproc-per-node N",
        ),
    ],
)
def test_processes_that_the_spec_does_not_ask_for(
    monkeypatch: pytest.MonkeyPatch, world: str, train: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(InputError, match=message):
        check_world(TrainPart(**train))

"""The names a job may give as its method: the table's, and those of plugins, which the daemon never imports."""

import sys
from pathlib import Path

import pytest
from support.models import tiny_spec
from support.plugins import install

from carbonsched.errors import InputError
from carbonsched.model.job import ACCEPTED, JobSpec
from carbonsched.model.methods.traits import METHODS, method_names


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(tmp_path))
    install(
        tmp_path,
        "moon",
        {"carbonsched.methods": {"moon": "moon_method:ROW"}},
        moon_method="raise SystemExit(3)",
    )
    return "moon"


def test_the_name_of_a_plugin_is_enough(plugin: str) -> None:
    assert method_names() == (*METHODS, plugin)
    spec = JobSpec.parse(tiny_spec(Path("m"), Path("d"), train={"method": plugin}))
    assert spec.train.method == plugin
    assert "moon_method" not in sys.modules


def test_a_method_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(
        InputError,
        match=r"^job\.toml: train\.method: 'greentrain' is no method .*did you mean 'greentrainer'",
    ):
        JobSpec.parse(tiny_spec(Path("m"), Path("d"), train={"method": "greentrain"}), where="job.toml")


def test_an_accepted_job_stays_readable_without_its_plugin() -> None:
    gone = tiny_spec(Path("m"), Path("d"), train={"method": "gone"})
    with pytest.raises(InputError, match="'gone' is no method of this installation"):
        JobSpec.parse(gone)
    assert JobSpec.model_validate(gone, context=ACCEPTED).train.method == "gone"

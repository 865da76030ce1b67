"""The names a job may give as its method: the table's, and those of plugins, which the daemon never imports."""

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.models import tiny_spec
from support.plugins import install

from carbonsched.errors import InputError
from carbonsched.model.job import ACCEPTED, JobSpec
from carbonsched.model.methods.traits import METHODS, method_names, unknown_method


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


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("tokens+lora", "lora+tokens"),
        ("LoRA", "lora"),
        ("FULL", "full"),
        ("greentrainer-tokens", "greentrainer+tokens"),
        ("tokens+greentrainer", "greentrainer+tokens"),
        ("Lora + GreenTrainer", "greentrainer+lora"),
        ("green_trainer", "greentrainer"),
        ("lora,tokens", "lora+tokens"),
        ("full fine-tuning", "full"),
        ("ft_top2", "ft-top2"),
        (" lora ", "lora"),
    ],
)
def test_another_order_case_or_sign_leads_to_the_method_that_is_there(told: str, meant: str) -> None:
    with pytest.raises(InputError, match=rf"; did you mean {re.escape(repr(meant))}\?$"):
        JobSpec.parse(tiny_spec(Path("m"), Path("d"), train={"method": told}))


def test_methods_that_do_not_go_together_are_told_apart() -> None:
    with pytest.raises(InputError, match=r"'prefix\+LoRA': these cannot be had together; use lora or prefix"):
        JobSpec.parse(tiny_spec(Path("m"), Path("d"), train={"method": "prefix+LoRA"}))


@given(st.permutations(sorted(METHODS)), st.sampled_from("+ ,&/"))
def test_every_method_is_found_by_its_parts(order: list[str], sign: str) -> None:
    for name in order:
        told = sign.join(reversed(name.split("+"))).upper()
        if told not in METHODS:
            assert unknown_method(told)[1] == f"did you mean {name!r}?"

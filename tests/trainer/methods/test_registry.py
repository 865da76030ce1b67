"""One row per method, built in or from a plugin; a plugin that fails hurts only who asks for it."""

from pathlib import Path

import pytest
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from support.plugins import install
from support.steer import of, train

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from carbonsched.model.methods.traits import METHODS
from trainer.check import check_job
from trainer.commands.run import check, run
from trainer.job.job_dir import JobDir
from trainer.methods.registry import ROWS, MethodRow, check_method, method_row
from trainer.run import run_job

GROUP = "carbonsched.methods"
NORMS = """
from carbonsched.model.methods.traits import MethodTraits
from trainer.methods.constant import ConstantMethod
from trainer.methods.registry import MethodRow

class Norms(ConstantMethod):
    def narrow(self, names):
        return [name for name in names if "norm" in name]

ROW = MethodRow(MethodTraits(constant_rho=True, compile=False), Norms)
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def spec(folder: Path, **train: object) -> JobSpec:
    return JobSpec.parse(tiny_spec(folder / "model", folder / "data", train=train))


def test_every_method_that_a_job_may_name_can_be_built() -> None:
    assert list(ROWS) == list(METHODS)
    assert all(row.traits is METHODS[name] for name, row in ROWS.items())
    assert all((row.wrap is not None) == row.traits.trains_adapters for row in ROWS.values())


def test_there_is_no_other_method() -> None:
    with pytest.raises(
        InputError, match=r"train\.method: 'galore' is no method of this installation; .*'lora'"
    ):
        method_row("galore")


def test_a_plugin_is_checked_and_trained_like_a_built_in(site: Path, tmp_path: Path) -> None:
    install(site, "norm-tuning", {GROUP: {"norms": "norm_tuning:ROW"}}, norm_tuning=NORMS)
    data = tiny_spec(
        tiny_llama(tmp_path / "model"), word_data(tmp_path / "data"), train={"method": "norms", "epochs": 1}
    )
    job = job_folder(tmp_path / "job", data)
    found = check(job / "spec.json")
    assert found.rho_floor < 1
    assert any("'norms' trains at ρ" in note for note in found.notes)
    assert run(job, alone=True) == 0
    done = [e for e in JobDir(job).events() if e.event == "segment_done"]
    assert done
    assert all("norm" in name for name in done[0].selected)


def test_what_a_plugin_does_not_go_with_is_refused_by_the_trainer(site: Path, tmp_path: Path) -> None:
    install(site, "norm-rules", {GROUP: {"norms": "norm_rules:ROW"}}, norm_rules=NORMS)
    assert isinstance(check_method(spec(tmp_path, method="norms")), MethodRow)
    for settings, field in (({"compile": True}, "compile"), ({"skip_earliest": 0.2}, "skip_earliest")):
        with pytest.raises(InputError, match=rf"train\.{field}: .*method 'norms'"):
            check_method(spec(tmp_path, method="norms", **settings))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import no_such_module", r"plugin 'bad' of bad-method .*cannot be imported: ModuleNotFoundError.*uninstall bad-method"),
        ("ROW = 7", r"plugin 'bad' of bad-method .*is no .*MethodRow; fix or uninstall bad-method"),
    ],
)  # fmt: skip
def test_a_plugin_that_fails_is_one_line_and_takes_nobody_with_it(
    site: Path, tmp_path: Path, source: str, words: str
) -> None:
    module = f"bad_method_{len(source)}"
    install(site, "bad-method", {GROUP: {"bad": f"{module}:ROW"}}, **{module: source})
    install(site, "good-method", {GROUP: {"good": "good_method:ROW"}}, good_method=NORMS)
    asked = spec(tmp_path, method="bad")  # the daemon knows the name and imports nothing
    with pytest.raises(InputError, match=words):
        check_method(asked)
    assert check_method(spec(tmp_path, method="good")).traits.constant_rho
    assert check_method(spec(tmp_path, method="full")) is ROWS["full"]


def test_tensors_and_tokens_train_below_what_either_can(llama: Path, data: Path, tmp_path: Path) -> None:
    floors = []
    for method in ("greentrainer", "tokens", "greentrainer+tokens"):
        spec = tiny_spec(llama, data, train={"epochs": 1, "method": method}, carbon={"rho_start": 0.3})
        job = job_folder(tmp_path / method, spec)
        assert run_job(JobDir(job), lambda: False, patience_s=0.2) == "done"
        floors.append(of(job, "segment_ready")[0]["rho_floor"])
    assert floors[2] < min(floors[:2])
    for done in of(job, "segment_done"):
        assert abs(done["rho_realised"] - done["rho_planned"]) <= 0.01
        assert 0 < done["gradient_share"] < 1
        assert len(done["selected"]) < 30


@pytest.mark.parametrize("method", ["full", "fixed", "random", "ft-top2", "tokens"])
def test_other_methods(llama: Path, data: Path, tmp_path: Path, method: str) -> None:
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"epochs": 2, "method": method}))
    assert train(job) == "done"
    done = of(job, "segment_done")
    batches = [r["importance_batches"] for r in of(job, "segment_ready")]
    assert all(abs(d["rho_realised"] - d["rho_planned"]) <= 0.01 for d in done)
    if method == "full":
        assert all(d["rho_realised"] == pytest.approx(1) for d in done)
        assert batches == [0, 0]
    elif method == "fixed":
        assert batches == [1, 0], "measured once"
        first, second = ([p["importance"] for p in r["frontier"]] for r in of(job, "segment_ready"))
        assert first == second
    elif method == "tokens":
        ready = of(job, "segment_ready")
        assert all(0 < d["gradient_share"] < 1 for d in done)
        assert all(r["rho_floor"] < 0.8 < r["frontier"][-1]["rho"] == 1 for r in ready)
        assert all(
            r["rho_floor"] <= d["rho_planned"] <= d["rho_directed"] for d, r in zip(done, ready, strict=True)
        )
        assert check_job(JobDir(job).spec().spec).rho_floor == pytest.approx(ready[0]["rho_floor"], abs=0.05)
    elif method == "ft-top2":
        assert any("layers.3." in name for name in done[0]["selected"])
        assert not any("layers.1." in name for name in done[0]["selected"])
    else:
        assert done[0]["selected"] != done[1]["selected"]

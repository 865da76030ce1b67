"""`check` and `run` as commands."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from transformers import AutoModelForCausalLM

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec
from carbonsched.model.job_file import read_job
from trainer.commands.run import check, make_job_dir, run
from trainer.profiling.flop_counter import Shape
from trainer.removals import removals

JOB = """
name = "tiny"
[model]
name_or_path = "model"
[data]
name_or_path = "data"
max_length = 32
pad = "max_length"
[train]
epochs = 3
{train}
[carbon]
budget_g = 1.0
{carbon}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    tiny_llama(folder / "model")
    word_data(folder / "data")
    return folder


def job_toml(home: Path, *, train: str = "", carbon: str = "") -> Path:
    file = home / "JOB.toml"
    method = "" if "method" in train else '\nmethod = "greentrainer"'
    file.write_text(JOB.format(train=train + method, carbon=carbon))
    return file


def test_check_tells_what_the_job_would_be(home: Path) -> None:
    found = check(job_toml(home))
    assert (found.rows, found.validation_rows, found.steps, found.segments) == (32, 8, 24, 3)
    assert (found.batch, found.seq, found.target_seq) == (4, 32, None)
    assert found.ok
    assert 1 / 3 + 1 / 8 < found.rho_floor < 0.6, "an importance batch of eight steps is in it"
    assert found.step_flops_full > 0


def test_a_job_of_the_cpu_sees_no_board(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert check(job_toml(home, train='device = "cpu"')).ok
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


PADDED = {"head": True, "padding": False, "precision": False, "update": True}


@pytest.mark.parametrize(
    ("train", "on", "why"),
    [
        ("", {}, 'data.pad = "max_length"'),
        ("labelled_head = false", {"head": False}, "train.labelled_head = false"),
        ("compile = true", {"head": False}, "train.compile would compile anew"),
        ('autocast = "bf16"', {"precision": True}, "matrix products run in bf16 over fp32 weights"),
        ('autocast = "off"', {}, 'train.autocast = "off"'),
        ('optimizer = "sgd"', {"update": False}, "sgd has no fused update"),
    ],
)
def test_check_says_which_waste_is_left_out_and_which_not_and_why(
    home: Path, train: str, on: dict[str, bool], why: str
) -> None:
    found = check(job_toml(home, train=train))
    assert {one.what: one.on for one in found.removals} == PADDED | on
    assert any(why in one.text for one in found.removals)
    assert "tokens alone" in found.removals[0].text or not found.removals[0].on


@pytest.mark.parametrize(
    ("data", "grouped", "on", "why"),
    [
        ({"pad": "longest"}, True, True, "rows of like length"),
        ({"pad": "longest"}, False, False, "train.group_by_length = false"),
        ({"pad": "max_length", "pack": True, "task": "causal"}, True, True, "nothing is padded"),
    ],
)
def test_padding_that_remains_is_said(
    home: Path, data: dict[str, Any], grouped: bool, on: bool, why: str
) -> None:
    spec = tiny_spec(home / "model", home / "data", data=data, train={"group_by_length": grouped})
    (found,) = (
        one for one in removals(JobSpec.parse(spec), Shape(4, 32, None, 9), None) if one.what == "padding"
    )
    assert (found.on, why in found.text) == (on, True)


def test_text_metrics_without_rows_to_write_for_are_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text((home / "data" / "train.jsonl").read_text())
    spec = tiny_spec(home / "model", tmp_path / "train.jsonl") | {"evaluate": {"metrics": ["nll", "rouge"]}}
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec))
    with pytest.raises(
        InputError, match=r"evaluate\.metrics: asks for rouge, and there are no rows.*data\.validation"
    ):
        check(file)
    file.write_text(json.dumps(spec | {"evaluate": {"metrics": ["nll"]}}))
    assert check(file).validation_rows == 0


@pytest.mark.parametrize("which", ["weights", "config"])
def test_a_tokenizer_that_is_larger_than_the_embeddings_is_refused(
    home: Path, tmp_path: Path, which: str
) -> None:
    shutil.copytree(home / "model", tmp_path / "model")
    if which == "weights":
        model = AutoModelForCausalLM.from_pretrained(home / "model")
        model.resize_token_embeddings(7)
        model.save_pretrained(tmp_path / "model")
        said = (
            r"model\.name_or_path: its tokenizer gives token \d+, and its embeddings have 7 rows \(vocab_size"
        )
    else:
        file = tmp_path / "model" / "config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"vocab_size": 9000}))
        said = r"model\.name_or_path: its config.json says vocab_size 9000, its weights have \d+ rows"
    shutil.copytree(home / "data", tmp_path / "data")
    with pytest.raises(InputError, match=said):
        check(job_toml(tmp_path))


def test_a_job_file_is_trained_without_a_daemon(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of its name; the same again goes on from there, another job is refused, an error leaves no folder."""
    from support.steer import of

    monkeypatch.chdir(tmp_path)
    file = job_toml(home, train="max_steps = 2", carbon="rho_start = 0.9")
    assert run(file) == 0
    (done,) = of(tmp_path / "tiny", "segment_done")
    assert (done["steps"], done["rho_directed"]) == (2, 0.9)
    assert (tmp_path / "tiny" / "output" / "model.safetensors").is_file()
    assert make_job_dir(file) == Path("tiny"), "it goes on there"
    with pytest.raises(InputError, match="tiny holds another job, or this one with other settings"):
        make_job_dir(job_toml(home, train="max_steps = 3"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for out, line in (("full", "no empty folder"), ("full/thesis.tex", "no empty folder")):
        with pytest.raises(InputError, match=line):
            make_job_dir(file, tmp_path / out)
    with pytest.raises(InputError, match="did you mean 'max_steps'"):
        run(job_toml(home, train="max_step = 3"), out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match=r"goes with a JOB\.toml"):
        run(tmp_path / "tiny", out=tmp_path / "new")


def test_check_and_run_agree_on_the_floor(home: Path, tmp_path: Path) -> None:
    from support.steer import FakeDaemon, always, of

    spec = read_job(job_toml(home, train="max_steps = 8"))
    job = job_folder(tmp_path / "job", spec.dump())
    with FakeDaemon(job, always(0.7)):
        assert run(job) == 0
    ready = of(job, "segment_ready")[0]
    assert ready["rho_floor"] == pytest.approx(check(job / "spec.json").rho_floor)
    assert ready["flops_full"] == pytest.approx(8 * check(job / "spec.json").step_flops_full)


@pytest.mark.parametrize("field", ["rho_min", "rho_max"])
def test_a_rho_below_the_floor_is_refused_with_the_value_that_works(home: Path, field: str) -> None:
    with pytest.raises(
        InputError, match=rf"carbon\.{field}: 0\.3 is below this model's floor 0\.\d+ .*set it to"
    ) as e:
        check(job_toml(home, carbon=f"{field} = 0.3"))
    advised = float(str(e.value).split("set it to ")[1].split()[0])
    assert check(job_toml(home, carbon=f"{field} = {advised}")).ok


def test_a_wanted_mean_below_the_floor_is_refused_too(home: Path) -> None:
    lean = 'objective = "min-carbon"\ndeadline = "2h"\nrho_mean = '
    with pytest.raises(InputError, match=r"carbon\.rho_mean: 0\.2 is below this model's floor"):
        check(job_toml(home, carbon=lean + "0.2"))
    assert check(job_toml(home, carbon=lean + "0.8")).ok


@pytest.mark.parametrize(
    ("rows", "segment"), [(42, "10"), (41, "10"), (52, "10"), (21, "2"), (41, '"epoch"')]
)
def test_the_floor_is_that_of_an_ordinary_step(home: Path, tmp_path: Path, rows: int, segment: str) -> None:
    """Whatever remains behind the last whole segment, or in the last batch of an epoch."""
    train = f'method = "greentrainer"\nbatch_size = 2\nsegment = {segment}\nepochs = 1'
    folder = word_data(tmp_path / "data", train=rows, validation=2)
    file = home / "JOB.toml"
    file.write_text(
        JOB.format(train=train, carbon="").replace('"data"', f'"{folder}"').replace("epochs = 3\n", "")
    )
    found = check(file)
    steps = 21 if segment == '"epoch"' else int(segment)
    cheapest = found.rho_floor - 1 / steps
    assert 1 / 3 < cheapest < 0.5
    assert found.segments == max(round(-(-rows // 2) / steps), 1)


def test_segments_too_short_for_their_importance_batches(home: Path) -> None:
    with pytest.raises(InputError, match="make segments longer"):
        check(job_toml(home, train="segment = 1", carbon="rho_min = 0.5"))


def test_constant_methods_say_that_rho_is_not_theirs_to_choose(home: Path) -> None:
    found = check(job_toml(home, train='method = "full"'))
    assert found.rho_floor == 1.0
    assert any("whatever the budget" in note for note in found.notes)


@pytest.mark.parametrize(
    ("train", "carbon", "message"),
    [
        ('method = "prefix"\ngradient_checkpointing = true', "", r"train\.gradient_checkpointing.*lora"),
        ("epoch = 3", "", r"JOB\.toml: train\.epoch: unknown key; did you mean 'epochs'"),
        ("", "rho_max = 2.0", r"carbon\.rho_max"),
        ("lr = = 3", "", r"JOB\.toml: is not TOML: .*line 11"),
    ],
)
def test_bad_specs_name_field_and_mend(home: Path, train: str, carbon: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(job_toml(home, train=train, carbon=carbon))


def test_every_data_line_is_read(home: Path, tmp_path: Path) -> None:
    data = word_data(tmp_path / "data")
    with (data / "train.jsonl").open("a") as file:
        file.write('{"source": "w1"}\n')
    spec = tiny_spec(home / "model", data)
    job = job_folder(tmp_path / "job", spec)
    with pytest.raises(InputError, match=r"train\.jsonl: line 33 has no field 'target'"):
        check(job / "spec.json")


def test_paths_are_read_from_the_specs_own_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check(job_toml(home)).rows == 32


def test_a_test_file_beside_the_job_file_is_found(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not in the folder of the data, nor where the command was started."""
    lines = (home / "data" / "validation.jsonl").read_text().splitlines()[:3]
    (home / "held.jsonl").write_text("\n".join(lines) + "\n")
    file = job_toml(home, carbon='[evaluate]\ntest = "held.jsonl"')
    monkeypatch.chdir(tmp_path)
    assert check(file).test_rows == 3


def test_no_such_spec(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        check(tmp_path / "JOB.toml")


def test_a_job_file_that_is_missing_or_a_folder_that_cannot_be_made_is_one_line(
    home: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="there is no file"):
        make_job_dir(tmp_path / "nope.toml")
    with pytest.raises(InputError, match=r"--out: /proc/x cannot be made"):
        make_job_dir(job_toml(home), Path("/proc/x"))


def test_a_crash_is_one_line_in_events_and_a_traceback_in_the_log(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from support.steer import of

    def crash(*args: Any) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("trainer.run.load_model", crash)
    job = job_folder(tmp_path / "job", tiny_spec(home / "model", home / "data"))
    assert run(job) == 1
    assert of(job, "failed")[0]["error"] == "RuntimeError: two lines"
    assert "Traceback" in capsys.readouterr().err

"""LoRA and prefixes as methods: what they cost on many architectures, and real runs, resumed and loaded by others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.models import job_folder, tiny_spec
from support.shapes import ARCHITECTURES, HYBRIDS, counted, on_meta
from support.steer import FakeDaemon, always, of, stopped_in

from carbonsched.errors import InputError
from carbonsched.model.job import JobSpec, TrainPart
from carbonsched.model.profile import CheckResult
from trainer.check import check_job
from trainer.job.job_dir import JobDir
from trainer.methods.adapters import all_linear, plain_twin, targets
from trainer.methods.prepare import prepare
from trainer.methods.registry import add_adapters
from trainer.profiling.flop_counter import Shape
from trainer.profiling.meta_model import meta_twin
from trainer.profiling.profiler import profile
from trainer.run import run_job

torch.set_num_threads(1)
EVERY = [
    pytest.param(
        name, marks=() if name in ("bloom", "gpt2", "llama", "mixtral", "opt", "t5") else pytest.mark.slow
    )
    for name in sorted(ARCHITECTURES)
]
RENAMED = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""What peft asks of models by its old name."""
FUSED = {"bloom", "falcon", "gpt-neox", "gpt2", "mpt", "phi3"}


def train(job: Path, answer: Any = None, **options: Any) -> str:
    (job / "control.json").unlink(missing_ok=True)
    with FakeDaemon(job, answer or always(0.7)):
        return run_job(JobDir(job), options.pop("stopping", lambda: False), **options)


@pytest.mark.parametrize(
    ("name", "where"),
    [pytest.param(*p.values, "all-linear", marks=p.marks) for p in EVERY]
    + [pytest.param(p.values[0], None, marks=pytest.mark.slow) for p in EVERY if p.values[0] != "llama"]
    + [("llama", None)],
)
def test_lora_finds_its_matrices_and_is_set_against_the_plain_model(name: str, where: Any) -> None:
    config = ARCHITECTURES[name]()
    model = on_meta(config)
    assert len(targets(model)) == (1 if name in FUSED else 2)
    shape = Shape(2, 16, 8 if config.is_encoder_decoder else None)
    plain = profile(model, *shape)
    linear = [m for m in model.modules() if _is_linear(m) and m is not model.get_output_embeddings()]
    adapted = add_adapters(model, TrainPart(method="lora", lora_targets=where))
    if where is not None:
        wrapped = [m for m in adapted.modules() if hasattr(m, "base_layer")]
        assert {id(m.base_layer) for m in wrapped} == {id(m) for m in linear}
    assert not any(hasattr(m, "base_layer") for m in plain_twin(adapted).modules())
    prepared = prepare(adapted, "lora", shape)
    assert prepared.full.flops(Shape(4, *shape[1:])) == 2 * plain.full_flops
    assert prepared.method.names
    assert all(".lora_" in n for n in prepared.method.names)
    # forward and the activation gradient, no base weight's own gradient; in tiny models adapters are not small
    assert 0.6 < prepared.method.floor < (0.95 if where is None else 1.3)
    step = counted(meta_twin(adapted), list(prepared.method.names), "eager", shape[:3])
    assert step == pytest.approx(prepared.method.floor * plain.full_flops, rel=1e-3)


def _is_linear(module: torch.nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)


@pytest.mark.parametrize("name", ["mamba", pytest.param("falcon-h1", marks=pytest.mark.slow)])
def test_what_peft_cannot_adapt_is_left_out_of_all_linear(name: str) -> None:
    found = all_linear(on_meta(HYBRIDS[name]()))
    assert "out_proj" not in found
    assert "in_proj" in found


def test_a_head_that_is_the_embeddings_takes_no_adapters() -> None:
    """Merged they would change the embeddings, too: what is saved would be another model than was trained."""
    tied = on_meta(ARCHITECTURES["llama"]())
    with pytest.raises(InputError, match="lm_head shares its weight with the embeddings"):
        add_adapters(tied, TrainPart(method="lora", lora_targets=("q_proj", "lm_head")))
    with pytest.raises(InputError) as refused:
        add_adapters(tied, TrainPart(method="lora", lora_targets=("query",)))
    assert "lm_head" not in str(refused.value), "nor is it proposed"
    untied = on_meta(ARCHITECTURES["mistral"]())
    assert add_adapters(untied, TrainPart(method="lora", lora_targets=("lm_head",)))


def test_lora_of_a_real_size_costs_two_thirds() -> None:
    from support.shapes import opt_2_7b

    model = add_adapters(on_meta(opt_2_7b()), TrainPart(method="lora"))
    method = prepare(model, "lora", Shape(4, 512)).method
    assert method.floor == pytest.approx(0.675, abs=0.01)
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # four square matrices of attention, and two with a side four times as long
    assert parameters == 32 * (4 * 2 + 2 * 5) * 8 * 2560


@pytest.mark.parametrize("model", ["llama", "t5"])
@pytest.mark.parametrize("method", ["lora", "prefix", "greentrainer+lora"])
def test_a_run_spends_what_it_planned(
    model: str, method: str, data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(model)
    spec = tiny_spec(
        folder, data, data={"target_length": 8}, train={"method": method, "epochs": 2, "lr": 0.02}
    )
    job = job_folder(tmp_path / "job", spec)
    assert train(job) == "done"
    done = of(job, "segment_done")
    for d in done:
        assert d["rho_realised"] == pytest.approx(d["rho_planned"], rel=1e-9)
        if method == "greentrainer+lora":
            assert d["rho_planned"] <= 0.7
    if method == "greentrainer+lora":
        assert all(".lora_" in n for d in done for n in d["selected"])
        everything = {n for d in done for n in d["selected"]}
        assert len(done[0]["selected"]) < 2 * 2 * 4 * (2 if model == "t5" else 1)
        assert everything
    before, after = of(job, "evaluated")
    assert after["loss"] < before["loss"]
    assert of(job, "finished")[-1]["peak_memory_bytes"] > 0


@pytest.mark.slow
def test_fewer_tokens_make_steps_of_adapters_cheaper(llama: Path, data: Path, tmp_path: Path) -> None:
    jobs = {}
    for name, method, settings in (
        ("all", "lora", {}),
        ("some", "lora+tokens", {}),
        ("fixed", "lora+tokens", {"gradient_share": 0.75}),
    ):
        spec = tiny_spec(llama, data, train={"method": method, "epochs": 1, "lr": 0.02} | settings)
        jobs[name] = job_folder(tmp_path / name, spec)
        assert train(jobs[name], always(0.5)) == "done"
    done = {name: of(job, "segment_done")[0] for name, job in jobs.items()}
    ready = of(jobs["some"], "segment_ready")[0]
    assert done["some"]["rho_realised"] == pytest.approx(done["some"]["rho_planned"], rel=1e-9)
    assert (
        ready["rho_floor"]
        <= done["some"]["rho_planned"]
        < done["fixed"]["rho_planned"]
        < done["all"]["rho_planned"]
    )
    assert done["some"]["gradient_share"] < done["fixed"]["gradient_share"] < 1
    assert done["fixed"]["gradient_share"] == pytest.approx(0.75, abs=0.05)
    for name in ("some", "fixed"):
        assert done[name]["selected"] == done["all"]["selected"], "every adapter trains"
        assert done[name]["flops_own"] == pytest.approx(done["all"]["flops"], rel=0.02), (
            "its own run goes through every token"
        )
        before, after = of(jobs[name], "evaluated")
        assert after["loss"] < before["loss"]


@pytest.mark.slow
def test_the_floor_of_check_is_that_of_the_run(llama: Path, data: Path, tmp_path: Path) -> None:
    for method in ("lora", "prefix", "greentrainer+lora", "lora+tokens"):
        spec = tiny_spec(llama, data, train={"method": method, "epochs": 1})
        found = check_job(JobSpec.parse(spec))
        job = job_folder(tmp_path / method, spec)
        # its floor stands in its first segment_ready; no step behind that is looked at
        assert train(job, stopping=lambda job=job: bool(of(job, "segment_ready"))) == "stopped"
        assert found.rho_floor == pytest.approx(of(job, "segment_ready")[0]["rho_floor"])
        said = any("it can only wait or stop" in note for note in found.notes)
        assert said == (method in ("lora", "prefix"))


def test_the_optimizer_holds_the_adapters_alone(llama: Path, data: Path, tmp_path: Path) -> None:
    job = job_folder(tmp_path / "job", tiny_spec(llama, data, train={"method": "lora", "epochs": 1}))
    train(job)
    state = torch.load(job / "checkpoints" / "checkpoint-8" / "optimizer.pt", weights_only=True)["state"]
    from transformers import AutoModelForCausalLM

    model = add_adapters(AutoModelForCausalLM.from_pretrained(llama), TrainPart(method="lora"))
    held = sum(s["exp_avg"].numel() for s in state.values())
    assert held == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert held < 0.3 * sum(p.numel() for p in model.parameters())


@RENAMED
def test_lora_output_is_a_plain_model_and_the_adapters_beside_it(
    llama: Path, data: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = job_folder(
        tmp_path / "job", tiny_spec(llama, data, train={"method": "lora", "epochs": 2, "lr": 0.02})
    )
    train(job)
    merged = AutoModelForCausalLM.from_pretrained(job / "output").eval()
    base = AutoModelForCausalLM.from_pretrained(llama).eval()
    tokens = torch.randint(4, 40, (2, 12))
    with torch.no_grad():
        plain = base(tokens).logits
        trained = PeftModel.from_pretrained(base, str(job / "output" / "adapter"))(tokens).logits
        found = merged(tokens).logits
    torch.testing.assert_close(found, trained, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-2), "training changed something"
    assert json.loads((job / "output" / "metrics.json").read_text())["output"] == "merged"
    AutoTokenizer.from_pretrained(job / "output")


@RENAMED
# here peft alone calls the model, and peft 0.21 calls the cache by its old name
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")
def test_prefix_output_is_loaded_by_peft_on_top_of_the_base(llama: Path, data: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    from trainer.data.encoding import TextEncoder
    from trainer.data.reading import load_rows
    from trainer.evaluation.metrics import measure_loss

    spec = JobSpec.parse(tiny_spec(llama, data, train={"method": "prefix", "epochs": 2, "lr": 0.05}))
    job = job_folder(tmp_path / "job", json.loads(spec.model_dump_json(exclude_none=True)))
    train(job)
    assert json.loads((job / "output" / "metrics.json").read_text())["output"] == "adapter"
    model = AutoPeftModelForCausalLM.from_pretrained(str(job / "output"))
    encoder = TextEncoder.of(spec.model, spec.data)
    rows = encoder.encode(load_rows(spec.data).validation)
    assert measure_loss(model, rows, encoder, 4).nll == pytest.approx(
        of(job, "evaluated")[-1]["loss"], rel=1e-5
    )


@pytest.mark.parametrize(
    "method",
    [
        "lora",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("prefix", "greentrainer+lora", "lora+tokens")),
    ],
)
def test_stopped_and_resumed_is_exact(llama: Path, data: Path, tmp_path: Path, method: str) -> None:
    from safetensors.torch import load_file

    spec = tiny_spec(llama, data, train={"method": method, "epochs": 2, "lr": 0.02, "lora_dropout": 0.2})
    straight = job_folder(tmp_path / "straight", spec)
    train(straight)
    job = job_folder(tmp_path / "job", spec)
    assert train(job, stopped_in(1, 0.7, 3)) == "stopped"
    assert of(job, "finished")[-1]["step"] == 11
    assert train(job) == "done"
    name = "adapter_model.safetensors" if method == "prefix" else "model.safetensors"
    one, other = (load_file(j / "output" / name) for j in (straight, job))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], other[n]) for n in one)
    ours, theirs = of(job, "segment_done"), of(straight, "segment_done")
    for field in ("selected", "flops", "rho_planned"):
        assert [d[field] for d in ours] == [d[field] for d in theirs]
    assert [d["loss"] for d in ours] == pytest.approx([d["loss"] for d in theirs])


def test_stopped_in_the_last_evaluation_leaves_only_that(llama: Path, data: Path, tmp_path: Path) -> None:
    spec = tiny_spec(llama, data, train={"method": "lora", "epochs": 1, "lr": 0.02})
    straight = job_folder(tmp_path / "straight", spec)
    train(straight)
    job = job_folder(tmp_path / "job", spec)
    assert train(job, stopping=lambda: any(c["step"] == 8 for c in of(job, "checkpoint"))) == "stopped"
    assert train(job) == "done"
    assert of(job, "evaluated")[-1]["loss"] == of(straight, "evaluated")[-1]["loss"]


def test_checkpointing_changes_memory_not_rho(llama: Path, data: Path, tmp_path: Path) -> None:
    """transformers would make the embeddings' output require a gradient: with adapters in the top blocks alone, a waste."""
    found = []
    for checkpointing in (False, True):
        settings = {"method": "greentrainer+lora", "epochs": 1, "gradient_checkpointing": checkpointing}
        job = job_folder(tmp_path / str(checkpointing), tiny_spec(llama, data, train=settings))
        train(job, always(0.65))
        found += of(job, "segment_done")
    plain, checkpointed = found
    assert checkpointed["selected"] == plain["selected"]
    assert checkpointed["rho_realised"] == pytest.approx(plain["rho_realised"])
    assert plain["flops_recomputed"] == 0 < checkpointed["flops_recomputed"]
    assert checkpointed["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_settings_reach_peft() -> None:
    model = on_meta(ARCHITECTURES["llama"]())
    train = TrainPart(
        method="lora", lora_rank=3, lora_alpha=6, lora_dropout=0.1, lora_targets=("mlp.up_proj",)
    )
    wrapped = add_adapters(model, train)
    adapters = [n for n, p in wrapped.named_parameters() if p.requires_grad]
    assert len(adapters) == 3 * 2
    assert all("mlp.up_proj.lora_" in n for n in adapters)
    config = wrapped.active_peft_config
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 6, 0.1)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            {"method": "lora", "lora_targets": ["q_proj", "nope"]},
            r"train\.lora_targets: the model has no 'nope'; name some of",
        ),
        (
            {"method": "lora", "lora_targets": "q_proj"},
            r"train\.lora_targets: 'q_proj' is no list of names; write \['q_proj'\], or 'all-linear'",
        ),
        (
            {"method": "lora", "lora_targets": ["all-linear"]},
            r"train\.lora_targets: 'all-linear' is no name of a matrix; write 'all-linear' without the list",
        ),
        (
            {"method": "prefix", "gradient_checkpointing": True},
            r"train\.gradient_checkpointing: a prefix travels in the cache",
        ),
        (
            {"method": "lora", "lora_targets": []},
            r"train\.lora_targets: is empty: there would be no adapters",
        ),
        (
            {"method": "lora", "lora_targets": [""]},
            r"train\.lora_targets: '' is no name of a matrix; name matrices",
        ),
        ({"method": "lora", "lora_targets": 3}, r"train\.lora_targets: 3 is no list of names; name matrices"),
        (
            {"method": "lora", "lora_rank": 100_000},
            r"train\.lora_rank: 100000 is more than any of the adapted matrices has: the largest has rank \d+; take \d+ or less",
        ),
        ({"method": "lora", "lora_alpha": 1e300}, r"train\.lora_alpha"),
        (
            {"method": "prefix", "prefix_tokens": 10**6},
            r"train\.prefix_tokens: 1000000 is no less than the \d+ positions that the model has",
        ),
        (
            {"method": "lora", "gradient_share": 0.3},
            r"train\.gradient_share: method 'lora' takes no fixed share of tokens: adapters train on every token",
        ),
        ({"method": "tokens+lora"}, r"'tokens\+lora' is no method of .*; did you mean 'lora\+tokens'\?"),
        ({"method": "dropbp", "compile": True}, r"train\.compile: each step drops other branches"),
    ],
)
def test_what_cannot_be_is_refused(llama: Path, data: Path, train: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_job(JobSpec.parse(tiny_spec(llama, data, train=train)))


def test_check_tells_the_rate_of_each_setting_of_auto_and_why_lora_is_none_of_them(
    llama: Path, data: Path
) -> None:
    def checked(**train: Any) -> CheckResult:
        given = {"method": "auto", "lr": 1e-3} | train
        found = check_job(JobSpec.parse(tiny_spec(llama, data, train=given)))
        assert ("lora" in {s.setting.method for s in found.settings}) == (train == {})
        return found

    offered = checked().settings
    assert {(s.setting.method, s.lr) for s in offered if s.setting.method in ("full", "lora")} == {
        ("full", 1e-3), ("lora", 1.6e-2)
    }  # fmt: skip
    drawn = next(s for s in offered if s.setting.method == "greentrainer" and s.rho < 0.65)
    assert drawn.lr == pytest.approx(4e-3)
    assert all(s.lr < 1e-3 for s in offered if s.setting.gradient_share is not None)
    note = "lora is none of the settings that auto may choose: "
    assert f"{note}train.lora_rank: 4096 is more than any" in " ".join(checked(lora_rank=4096).notes)
    assert f"{note}it does not go with other settings of this job" in checked(skip_earliest=0.2).notes


def test_a_model_of_ones_own_brings_its_adapters() -> None:
    shape = Shape(2, 16)
    plain = on_meta(ARCHITECTURES["llama"]())
    with pytest.raises(InputError, match="has no adapters for method 'lora'"):
        prepare(plain, "lora", shape)
    full = profile(plain, *shape).full_flops
    wrapped = add_adapters(plain, TrainPart(method="lora"))
    with pytest.raises(InputError, match="'dropbp' trains the model itself"):
        prepare(wrapped, "dropbp", shape)
    method = prepare(wrapped, "greentrainer", shape).method
    assert method.profile.full_flops == full
    assert all(".lora_" in name for name in method.names)


def test_a_model_without_known_projections_asks_for_names() -> None:
    from transformers import MambaConfig

    model = on_meta(MambaConfig(vocab_size=301, hidden_size=64, num_hidden_layers=2))
    model.backbone.layers[0].mixer.in_proj = torch.nn.Identity()
    model.backbone.layers[1].mixer.in_proj = torch.nn.Identity()
    with pytest.raises(InputError, match="no query and value projections by a known name; name some of"):
        targets(model)

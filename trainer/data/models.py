"""Loads model and tokenizer from a folder or the hub, with dtype and attention always explicit, and refuses a folder without weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from carbonsched.errors import InputError
from carbonsched.model.job import ModelPart
from trainer import hub_reach
from trainer.profiling.meta_model import DTYPES

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def check_folder(part: ModelPart) -> None:
    """Raise InputError if `part` names a local folder that cannot be trained: absent, no config, no weights."""
    folder = Path(part.name_or_path).expanduser()
    if not folder.exists():
        if part.name_or_path.startswith(("/", ".", "~")) or part.name_or_path.count("/") > 1:
            raise InputError(
                "model.name_or_path", f"there is no folder {folder}", "give a saved model or a hub id"
            )
        return
    if not folder.is_dir() or not (folder / "config.json").is_file():
        raise InputError(
            "model.name_or_path", f"{folder} holds no config.json", "give the folder of a saved model"
        )
    if not any(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern)):
        raise InputError(
            "model.name_or_path",
            f"{folder} holds no weights ({' or '.join(_WEIGHTS)})",
            "give a folder made by save_pretrained; a GGUF file is turned into one by trainer.data.models.convert_gguf",
        )


def load_model(part: ModelPart) -> Any:
    """The model with its weights in `part.dtype`, in train mode. Raises InputError."""
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    check_folder(part)
    quiet()
    name = (
        str(Path(part.name_or_path).expanduser())
        if Path(part.name_or_path).expanduser().exists()
        else part.name_or_path
    )
    hub_reach.prepare(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        factory = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model = factory.from_pretrained(
            name, dtype=DTYPES[part.dtype], attn_implementation=part.attn, trust_remote_code=False
        )
    except Exception as e:  # each library beneath has its own class for a broken file
        raise hub_reach.refusal("model.name_or_path", name, "a model") or InputError(
            "model.name_or_path",
            f"{part.name_or_path} cannot be loaded ({_first_line(e)})",
            f"give a saved model or a hub id that transformers {transformers.__version__} knows",
        ) from e
    return model.train()


def load_tokenizer(part: ModelPart) -> Any:
    """The tokenizer, with a pad token; eos is used if the model has none. Raises InputError."""
    from transformers import AutoTokenizer

    check_folder(part)
    quiet()
    hub_reach.prepare(part.name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(part.name_or_path, trust_remote_code=False)
    except Exception as e:  # each library beneath has its own class for a broken file
        local = Path(part.name_or_path).expanduser().exists()
        raise hub_reach.refusal("model.name_or_path", part.name_or_path, "a model") or InputError(
            "model.name_or_path",
            f"{part.name_or_path} has no tokenizer that can be loaded ({_first_line(e)})",
            "save the tokenizer into the model's folder"
            if local
            else "give the id of a model on the hub that has one, or a folder; a private one needs HF_TOKEN",
        ) from e
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise InputError(
                "model.name_or_path", "its tokenizer has neither pad nor eos token", "set pad_token"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_vocabulary(model: Any, tokens: Iterable[int], part: ModelPart) -> None:
    """Raise InputError if the largest of `tokens` has no row in the embeddings of `model` (a step would fail by its index), or if the
    weights that `part` names have another number of rows than its config.json says."""
    try:
        embeddings = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        return
    weight = getattr(embeddings, "weight", None)
    if weight is None or weight.dim() != 2:
        return
    rows, largest = int(weight.shape[0]), max(tokens, default=0)
    name = next((n for n, p in model.named_parameters() if p is weight), "")
    saved = _saved_rows(Path(part.name_or_path).expanduser(), name)
    if saved is not None and saved != rows:
        raise InputError(
            "model.name_or_path",
            f"its config.json says vocab_size {rows}, its weights have {saved} rows ({name}); the largest token is {largest}",
            "save the model again with model.save_pretrained, or fix vocab_size",
        )
    if largest >= rows:
        raise InputError(
            "model.name_or_path",
            f"its tokenizer gives token {largest}, and its embeddings have {rows} rows (vocab_size in config.json)",
            "take the tokenizer that belongs to it, or model.resize_token_embeddings(len(tokenizer)) and save both",
        )


def _saved_rows(folder: Path, name: str) -> int | None:
    """Rows of the tensor `name` in the weights of a folder; None if it is not found, or not a folder."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
        try:
            with safe_open(file, framework="np") as weights:
                if name in weights.keys():  # noqa: SIM118  # no mapping
                    return int(weights.get_slice(name).get_shape()[0])
        except (OSError, SafetensorError):
            continue  # the loader reports what is wrong with it
    return None


def is_encoder_decoder(part: ModelPart) -> bool:
    """By config.json alone."""
    from transformers import AutoConfig

    check_folder(part)
    hub_reach.prepare(part.name_or_path)
    try:
        config = AutoConfig.from_pretrained(part.name_or_path, trust_remote_code=False)
        return bool(config.is_encoder_decoder)
    except (OSError, ValueError, KeyError) as e:
        raise hub_reach.refusal("model.name_or_path", part.name_or_path, "a model") or InputError(
            "model.name_or_path",
            f"{part.name_or_path} cannot be read ({_first_line(e)})",
            "give a saved model, or the id of one on the hub",
        ) from e


def convert_gguf(file: Path, out_dir: Path) -> Path:
    """Turn a GGUF file into a folder of fp32 safetensors with its tokenizer; an `out_dir` that is there is kept.

    The weights are dequantised, so the folder says so in `carbonsched_origin.json`. Needs the package gguf. Raises
    InputError where the file is absent or of an architecture that transformers cannot read from GGUF.
    """
    if (out_dir / "config.json").is_file():
        return out_dir
    if not file.is_file():
        raise InputError("GGUF", f"there is no {file}", "give the path of a .gguf file")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name, trust_remote_code=False
        )
    except Exception as e:  # each library beneath has its own class for a broken file
        raise InputError(
            "GGUF", f"{file} cannot be loaded ({_first_line(e)})", "pip install gguf, or take another"
        ) from e
    # the weights are plain fp32 now, but transformers would refuse to save or train what it takes for quantised
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    part = out_dir.with_name(f".{out_dir.name}.part")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    origin = {"dequantised_from": file.name, "bytes": file.stat().st_size}
    (part / "carbonsched_origin.json").write_text(json.dumps(origin), encoding="utf-8")
    part.rename(out_dir)
    return out_dir


def quiet() -> None:
    """No progress bars: a job's output is a log file."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__

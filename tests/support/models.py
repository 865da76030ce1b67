"""Tiny models, data and job directories for tests: real ones, made here, trained in seconds."""

import hashlib
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WORDS = [f"w{i}" for i in range(48)]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def tiny_tokenizer(folder: Path) -> Any:
    """A word-level tokenizer over `w0` … `w47` and the prompt's own words, saved into `folder`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIAL, *WORDS, "Summary", "summarize", "Question", "Answer", ":"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    return fast


def tiny_llama(folder: Path, *, layers: int = 4, hidden: int = 32, seed: int = 0) -> Path:
    """A random Llama of a few ten thousand parameters with its tokenizer, saved into `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def tiny_t5(folder: Path, *, layers: int = 2, hidden: int = 32, seed: int = 0) -> Path:
    """A random T5 (with dropout, as T5 has) and its tokenizer, saved into `folder`."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = tiny_tokenizer(folder)
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=hidden,
        d_kv=8,
        d_ff=2 * hidden,
        num_layers=layers,
        num_heads=4,
        dropout_rate=0.1,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def word_rows(count: int, *, seed: int = 0, length: int = 12) -> list[dict[str, str]]:
    """Rows a model can learn: the target is the source's first three words."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        words = rng.choices(WORDS, k=length)
        rows.append({"source": " ".join(words), "target": " ".join(words[:3])})
    return rows


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def word_data(folder: Path, *, train: int = 32, validation: int = 8) -> Path:
    """A data folder: train.jsonl and validation.jsonl of `word_rows`."""
    write_jsonl(folder / "train.jsonl", word_rows(train))
    write_jsonl(folder / "validation.jsonl", word_rows(validation, seed=1))
    return folder


def tiny_spec(model: Path, data: Path, /, **parts: dict[str, Any]) -> dict[str, Any]:
    """JOB.toml's content: three epochs, a segment each, seconds of work. `parts` update `train`, `carbon`, …"""
    spec: dict[str, Any] = {
        "name": "tiny",
        "model": {"name_or_path": str(model)},
        "data": {"name_or_path": str(data), "max_length": 32, "pad": "max_length"},
        "train": {"method": "greentrainer", "epochs": 3, "batch_size": 4, "lr": 3e-3, "threads": 1},
        "carbon": {"budget_g": 100.0, "rho_start": 0.7},
    }
    for part, values in parts.items():
        spec[part] = {**spec[part], **values}
    return spec


def job_folder(folder: Path, spec: dict[str, Any]) -> Path:
    """A job directory as the daemon makes one, with spec.json in it."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    submitted = {
        "id": "1",
        "spec": spec,
        "owner": {"uid": 0, "gid": 0, "user": "test"},
        "submitted_at": datetime.now(UTC).isoformat(),
        "sha256": digest,
    }
    (folder / "spec.json").write_text(json.dumps(submitted), encoding="utf-8")
    return folder

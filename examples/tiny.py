"""What the three scripts beside this file train: a saved model and a file of your own, or a tiny random model of bytes."""

import argparse
import json
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    ByT5Tokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

PAIRS = Path(__file__).with_name("debian-pairs") / "train.jsonl"


def arguments(about: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", help="folder or hub id; without it a tiny random model")
    parser.add_argument("--data", type=Path, default=PAIRS, help='JSON lines: {"source": …, "target": …}')
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rho", type=float, default=0.7)
    parser.add_argument("--out", default="out")
    return parser.parse_args()


def pairs(args: argparse.Namespace) -> list[dict[str, str]]:
    with args.data.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(args.rows), strict=False)]
    return [{"source": row["source"][:160], "target": row["target"][:60]} for row in rows]


def causal(args: argparse.Namespace) -> tuple[Any, Any]:
    """(model, tokenizer)"""
    if args.model:
        return AutoModelForCausalLM.from_pretrained(args.model, trust_remote_code=False), _tokenizer(
            args.model
        )
    tokenizer = ByT5Tokenizer()
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **_tokens(tokenizer), **sizes)), tokenizer


def seq2seq(args: argparse.Namespace) -> tuple[Any, Any]:
    """(model, tokenizer)"""
    if args.model:
        return AutoModelForSeq2SeqLM.from_pretrained(args.model, trust_remote_code=False), _tokenizer(
            args.model
        )
    tokenizer = ByT5Tokenizer()
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4}
    config = T5Config(
        vocab_size=len(tokenizer),
        decoder_start_token_id=tokenizer.pad_token_id,
        **_tokens(tokenizer),
        **sizes,
    )
    model = T5ForConditionalGeneration(config)
    # the profile prices sdpa as one fused operator; on a CPU torch takes it apart where T5's position bias is trained
    model.set_attn_implementation("eager")
    return model, tokenizer


def show(history: list[Any]) -> None:
    for done in history:
        print(
            f"segment {done.k}: {done.steps} steps, {len(done.selected)} tensors, "
            f"rho planned {done.rho_planned:.4f}, realised {done.rho_realised:.4f}, loss {done.loss:.3f}"
        )


def _tokens(tokenizer: Any) -> dict[str, int]:
    return {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}


def _tokenizer(model: str) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return tokenizer

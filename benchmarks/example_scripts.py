"""Runs the example scripts of transformers and TRL, unmodified but for the callback, and compares planned with realised ρ.

    python -m benchmarks.example_scripts --transformers DIR --trl DIR [--metrics DIR] [--only NAME] [--out FILE]

DIR holds a checkout of the library (`examples/pytorch/…` and `trl/scripts/…` are run), `--metrics` the `metrics` folder of
`evaluate`'s checkout, which the scripts would load from the hub. Models and data are tiny and made here; a script runs on
one CPU in a process of its own. Exit code 1 where a script fails or the ratios differ by more than 0.01.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOLERANCE = 0.01
RHO = 0.6
STEPS = 12
WORDS = [
    "red",
    "green",
    "blue",
    "one",
    "two",
    "three",
    "four",
    "cat",
    "dog",
    "sun",
    "moon",
    "tree",
    "stone",
    "fire",
]
SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "eos_token": "[SEP]",
}

RUNNER = """
import json, runpy, sys
from pathlib import Path
import transformers
from trainer import GreenTrainerCallback

rho, segment, out, script = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
callback = GreenTrainerCallback(rho=rho, segment=segment)
build = transformers.Trainer.__init__

def added(self, *args, **kwargs):
    build(self, *args, **kwargs)
    self.add_callback(callback)

transformers.Trainer.__init__ = added
sys.argv = sys.argv[4:]
sys.path.insert(0, str(Path(script).parent))
try:
    runpy.run_path(script, run_name="__main__")
finally:
    Path(out).write_text(json.dumps([done.dump() for done in callback.history]))
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """One script with the model and data made for it.

    Example:
        >>> Trial("sft", "trl", "trl/scripts/sft.py", lambda folder: []).name
        'sft'
    """

    name: str
    library: str
    """`transformers` or `trl`: whose checkout the script is in."""
    script: str
    arguments: Callable[[Path], list[str]]
    """Makes model and data in a folder; returns the script's arguments."""


def save_tokenizer(folder: Path, pairs: str = "bert") -> int:
    """A tokenizer of whole words; `pairs` chooses the template of two texts. Returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<user>", "<assistant>", ":"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS + ["is", "what", "?", "summarize"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if pairs == "bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **SPECIAL,
        model_max_length=128,
    )
    fast.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} [SEP] {% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def sentence_model(folder: Path) -> Path:
    """NLTK's data with a sentence model that knows no abbreviation, in place of the one that a script downloads."""
    (folder / "tokenizers" / "punkt").mkdir(parents=True)
    english = folder / "tokenizers" / "punkt_tab" / "english"
    english.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (english / name).touch()
    return folder


def text(rng: random.Random, least: int = 6, most: int = 14) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def bert(folder: Path, head: str, **config: Any) -> Path:
    """A tiny BERT with the named head, and its tokenizer."""
    import transformers

    size = save_tokenizer(folder)
    built = transformers.BertConfig(
        vocab_size=size,
        **SIZE,
        **config,
    )
    getattr(transformers, head)(built).save_pretrained(folder)
    return folder


def llama(folder: Path) -> Path:
    import transformers

    size = save_tokenizer(folder, pairs="none")
    config = transformers.LlamaConfig(
        vocab_size=size,
        **SIZE,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=3,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def t5(folder: Path) -> Path:
    import transformers

    size = save_tokenizer(folder)
    config = transformers.T5Config(
        vocab_size=size,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=3,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


def common(folder: Path, model: Path) -> list[str]:
    return [
        *("--model_name_or_path", str(model), "--output_dir", str(folder / "out")),
        *("--max_steps", str(STEPS), "--per_device_train_batch_size", "4", "--learning_rate", "1e-3"),
        *("--report_to", "none", "--use_cpu", "--save_strategy", "no", "--logging_steps", "4"),
    ]


def text_classification(folder: Path) -> list[str]:
    rng = random.Random(0)
    rows = [{"sentence": text(rng), "label": rng.choice(["good", "bad"])} for _ in range(64)]
    train = write_lines(folder / "train.json", rows)
    model = bert(folder / "model", "BertForSequenceClassification", num_labels=2)
    return [
        *("--do_train", "--do_eval", "--train_file", str(train), "--validation_file", str(train)),
        *("--text_column_names", "sentence", "--label_column_name", "label", "--max_seq_length", "32"),
        *common(folder, model),
    ]


def token_classification(folder: Path) -> list[str]:
    rng = random.Random(0)
    rows = []
    for _ in range(64):
        tokens = text(rng).split()
        rows.append({"tokens": tokens, "ner_tags": [rng.choice(["O", "B-LOC", "I-LOC"]) for _ in tokens]})
    train = write_lines(folder / "train.json", rows)
    model = bert(folder / "model", "BertForTokenClassification", num_labels=3)
    files = ("--train_file", str(train), "--validation_file", str(train))
    return ["--do_train", "--do_eval", *files, *common(folder, model)]


def question_answering(folder: Path) -> list[str]:
    rng = random.Random(0)
    rows = []
    for i in range(64):
        context = text(rng, 12, 20)
        word = rng.choice(context.split())
        answers = {"text": [word], "answer_start": [context.index(word)]}
        rows.append(
            {
                "id": str(i),
                "title": "t",
                "context": context,
                "question": f"what is {text(rng, 2, 3)} ?",
                "answers": answers,
            }
        )
    train = folder / "train.json"
    train.write_text(json.dumps({"data": rows}), encoding="utf-8")
    model = bert(folder / "model", "BertForQuestionAnswering")
    return [
        *("--do_train", "--do_eval", "--train_file", str(train), "--validation_file", str(train)),
        *("--max_seq_length", "48", "--doc_stride", "16", *common(folder, model)),
    ]


def summarization(folder: Path) -> list[str]:
    rng = random.Random(0)
    rows = []
    for _ in range(64):
        document = text(rng, 12, 20)
        rows.append({"text": document, "summary": " ".join(document.split()[:5])})
    train = write_lines(folder / "train.json", rows)
    return [
        *("--do_train", "--do_eval", "--predict_with_generate", "--train_file", str(train)),
        *("--validation_file", str(train), "--source_prefix", "summarize : ", "--max_source_length", "32"),
        *("--max_target_length", "8", *common(folder, t5(folder / "model"))),
    ]


def on_texts(folder: Path, fields: tuple[str, ...], most: int) -> list[str]:
    """What TRL's scripts take: a folder as the hub's, rows of these fields, and a tiny Llama."""
    rng = random.Random(0)
    (folder / "data").mkdir()
    rows = [{name: text(rng) for name in fields} for _ in range(64)]
    write_lines(folder / "data" / "train.jsonl", rows)
    data = ("--dataset_name", str(folder / "data"), "--max_length", str(most))
    return [*data, *common(folder, llama(folder / "model"))]


def sft(folder: Path) -> list[str]:
    return on_texts(folder, ("text",), 32)


def dpo(folder: Path) -> list[str]:
    return on_texts(folder, ("prompt", "chosen", "rejected"), 48)


def reward(folder: Path) -> list[str]:
    import transformers

    arguments = dpo(folder)
    config = transformers.AutoConfig.from_pretrained(folder / "model", num_labels=1, trust_remote_code=False)
    transformers.LlamaForSequenceClassification(config).save_pretrained(folder / "model")
    return arguments


TRIALS = (
    Trial(
        "text-classification",
        "transformers",
        "examples/pytorch/text-classification/run_classification.py",
        text_classification,
    ),
    Trial(
        "token-classification",
        "transformers",
        "examples/pytorch/token-classification/run_ner.py",
        token_classification,
    ),
    Trial(
        "question-answering",
        "transformers",
        "examples/pytorch/question-answering/run_qa.py",
        question_answering,
    ),
    Trial(
        "summarization", "transformers", "examples/pytorch/summarization/run_summarization.py", summarization
    ),
    Trial("sft", "trl", "trl/scripts/sft.py", sft),
    Trial("reward", "trl", "trl/scripts/reward.py", reward),
    Trial("dpo", "trl", "trl/scripts/dpo.py", dpo),
)


def run(trial: Trial, script: Path, metrics: Path | None, segment: int) -> dict[str, Any]:
    """One trial in a folder of its own. Returns its planned and realised ratios, or why it failed."""
    with tempfile.TemporaryDirectory(prefix="carbonsched-script-") as name:
        folder = Path(name)
        for metric in metrics.iterdir() if metrics else ():
            (folder / metric.name).symlink_to(metric)
        out = folder / "history.json"
        environment = os.environ | {
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(folder / "hf"),
            "NLTK_DATA": str(sentence_model(folder / "nltk")),
            "OMP_NUM_THREADS": "1",
        }
        argv = [sys.executable, "-c", RUNNER, str(RHO), str(segment), str(out), str(script)]
        done = subprocess.run(
            [*argv, *trial.arguments(folder)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
            check=False,
        )
        history = json.loads(out.read_text()) if out.exists() else []
    segments = [
        {"planned": s["rho_planned"], "realised": s["rho_realised"], "selected": len(s["selected"])}
        for s in history
    ]
    worst = max((abs(s["realised"] - s["planned"]) for s in segments), default=None)
    last = done.stdout.strip().splitlines()[-1:] if done.returncode else []
    return {
        "name": trial.name,
        "exit": done.returncode,
        "problem": last[0] if last else None,
        "segments": segments,
        "worst_difference": worst,
        "output": done.stdout if done.returncode or not segments else None,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--transformers", type=Path, help="checkout of transformers")
    parser.add_argument("--trl", type=Path, help="checkout of TRL")
    parser.add_argument("--metrics", type=Path, help="the folder `metrics` of a checkout of evaluate")
    parser.add_argument("--only", action="append", choices=[trial.name for trial in TRIALS])
    parser.add_argument("--segment", type=int, default=4, help="optimizer steps of a segment")
    parser.add_argument("--out", type=Path, help="write all results there, as JSON")
    options = parser.parse_args()
    results = []
    for trial in TRIALS:
        checkout: Path | None = getattr(options, trial.library)
        if checkout is None or (options.only and trial.name not in options.only):
            continue
        result = run(trial, (checkout / trial.script).resolve(), options.metrics, options.segment)
        results.append(result)
        shown = ", ".join(f"{s['planned']:.4f} → {s['realised']:.4f}" for s in result["segments"])
        print(f"{trial.name:22} exit {result['exit']}  {shown or result['problem']}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
    good = [
        r["exit"] == 0 and r["worst_difference"] is not None and r["worst_difference"] <= TOLERANCE
        for r in results
    ]
    return 0 if results and all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The trial of other people's scripts, on a script that is written here."""

from pathlib import Path

import pytest

from benchmarks.example_scripts import TOLERANCE, Trial, common, llama, run, write_lines

SCRIPT = """
import json, sys
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, HfArgumentParser
from transformers import Trainer, TrainingArguments

folder = sys.argv.pop(sys.argv.index("--model_name_or_path") + 1)
sys.argv.remove("--model_name_or_path")
(args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
tokenizer = AutoTokenizer.from_pretrained(folder)
rows = [tokenizer(json.loads(line)["text"], max_length=8, padding="max_length") for line in open("rows.jsonl")]
model = AutoModelForCausalLM.from_pretrained(folder)
Trainer(model, args, train_dataset=rows, data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False)).train()
"""


def arguments(folder: Path) -> list[str]:
    write_lines(folder / "rows.jsonl", [{"text": "red green blue one two three four cat"}] * 16)
    return common(folder, llama(folder / "model"))


@pytest.mark.slow
def test_a_script_is_steered_by_the_callback_that_is_added(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT, encoding="utf-8")
    result = run(Trial("mine", "transformers", "train.py", arguments), script, None, segment=4)
    assert result["exit"] == 0, result["output"]
    assert [s["selected"] > 0 for s in result["segments"]] == [True, True, True]
    assert result["worst_difference"] <= TOLERANCE


@pytest.mark.slow
def test_a_script_that_fails_shows_why(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("raise SystemExit('no such column')", encoding="utf-8")
    result = run(Trial("mine", "transformers", "train.py", lambda folder: []), script, None, segment=4)
    assert (result["exit"], result["problem"], result["segments"]) == (1, "no such column", [])

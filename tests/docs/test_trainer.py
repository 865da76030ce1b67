"""docs/trainer.md and the README against the trainer: every argument, command and flag; the lines are real and run."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from support.command import cli
from support.models import tiny_llama

from trainer.__main__ import app, main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "trainer.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
HEADING = "## In your own script"


def commands() -> dict[str, Any]:
    """`bench select` → its parser's command."""
    root: Any = typer.main.get_command(app)
    found = dict(root.commands)
    for name, command in root.commands.items():
        found |= {f"{name} {inner}": below for inner, below in getattr(command, "commands", {}).items()}
    return found


COMMANDS = commands()


def section(name: str) -> str:
    found = re.search(
        rf"^### `python -m trainer {name}(?: [A-Z_]+)?`\n.*?(?=^##|\Z)", TEXT, flags=re.M | re.S
    )
    assert found, f"docs/trainer.md has no section for python -m trainer {name}"
    return found[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented_with_every_flag_and_an_example(name: str) -> None:
    text = section(name)
    own = {flag for option in COMMANDS[name].params for flag in option.opts if flag.startswith("-")}
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `-")]
    assert set(re.findall(r"`(--[a-z-]+)`", " ".join(rows))) == own - {"--json", "--help"}
    assert f"$ python -m trainer {name}" in text
    assert "JSON: " in text


def test_no_section_of_a_command_that_is_gone() -> None:
    documented = re.findall(r"^### `python -m trainer ([a-z ]+?)(?: [A-Z_]+)?`$", TEXT, flags=re.M)
    assert sorted(documented) == sorted(COMMANDS)


def test_every_argument_of_the_callback_with_its_default() -> None:
    from trainer import GreenTrainerCallback
    from trainer.training.options import Options

    # None and a function stand for what is said in words
    worded = {"patience_s": "30 s", "stopping": "never"}
    asked = {
        name: worded.get(name) or f"`{parameter.default!r}`".replace("'", '"')
        for name, parameter in inspect.signature(Options).parameters.items()
    }
    table = TEXT.split("### Its arguments")[1].split("###")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert {row[0].strip("`"): row[1] for row in rows} == asked
    assert all(len(row[2]) > 20 for row in rows)
    defaults = {name: one.default for name, one in inspect.signature(Options).parameters.items()}
    assert GreenTrainerCallback(**defaults).options == Options()


def code(page: str) -> str:
    """The first Python of the section."""
    found = re.search(rf"^{HEADING}$.*?```python\n(.*?)```", page, flags=re.M | re.S)
    assert found, f"no Python under {HEADING!r}"
    return found[1]


def added(text: str) -> list[str]:
    lines = [line.partition("# added")[0].strip() for line in text.splitlines() if "# added" in line]
    return [re.sub(r"rho=[\w.]+", "rho=", line) for line in lines]


def test_the_added_lines_are_those_of_the_examples() -> None:
    script = (ROOT / "examples" / "trainer_script.py").read_text(encoding="utf-8")
    assert len(added(script)) == 3
    assert added(code(README)) == added(code(TEXT)) == added(script)


def test_the_readme_leads_to_the_rest() -> None:
    below = README.split(HEADING)[1].split("\n## ")[0]
    assert "docs/trainer.md" in below
    assert "fewer steps" in README, "what docs/results.md found"


@pytest.mark.parametrize("page", [README, TEXT], ids=["README.md", "trainer.md"])
def test_the_lines_run_as_they_stand(page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments
    from transformers import DataCollatorForLanguageModeling as Collator

    folder = tiny_llama(tmp_path / "llama")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    run = {
        "Trainer": Trainer,
        "model": AutoModelForCausalLM.from_pretrained(folder),
        "args": TrainingArguments(
            str(tmp_path / "out"), num_train_epochs=2, per_device_train_batch_size=4, learning_rate=1e-3,
            save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        ),
        "rows": [{"input_ids": [4 + (7 * n + i) % 20 for i in range(12)]} for n in range(32)],
        "collator": Collator(tokenizer, mlm=False),
    }  # fmt: skip
    exec(code(page), run)  # noqa: S102
    green = run["green"]
    assert len(green.history) == 2  # type: ignore[attr-defined]
    for segment in green.history:  # type: ignore[attr-defined]
        assert segment.rho_realised == pytest.approx(segment.rho_planned, abs=0.01)
        assert segment.rho_realised < 1


@pytest.mark.parametrize("page", ["README.md", "docs/install.md"])
def test_nothing_is_said_to_be_on_an_index(page: str) -> None:
    """It is installed from a clone: `pip install carbonsched` would fetch what somebody else put there."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "pip install carbonsched" not in text
    assert 'pip install "carbonsched' not in text


def test_a_file_of_the_same_name_fails_as_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "trainer.py").write_text("")
    (tmp_path / "mine.py").write_text("from trainer import GreenTrainerCallback\n")
    ran = subprocess.run(
        [sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "cannot import name 'GreenTrainerCallback' from 'trainer'" in ran.stderr
    assert str(tmp_path / "trainer.py") in ran.stderr
    assert "`cannot import name 'GreenTrainerCallback' from 'trainer'`" in " ".join(TEXT.split())


def test_help_of_both_halves_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "bench" in capsys.readouterr().out
    assert cli("--help").code == 0

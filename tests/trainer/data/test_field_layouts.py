"""Data sets that are read with no more than naming them: as the hub gives them, and as they lie about as files."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.models import write_jsonl

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart, EvaluatePart
from trainer.data.field_layouts import Row
from trainer.data.reading import load_rows

PIQA = [
    {"goal": "Open a jar", "sol1": "Turn the lid.", "sol2": "Turn the jar upside down."},
    {"goal": "Dry hands", "sol1": "Wet them.", "sol2": "Use a towel."},
]
WEB = [
    {"url": "u1", "question": "what is the capital of france?", "answers": ["Paris", "City of Paris"]},
    {"url": "u2", "question": "who wrote hamlet?", "answers": ["Shakespeare"]},
]
DIALOGUE = {"fname": "x", "dialogue": "#Person1#: Hi.\n#Person2#: Hello.", "topic": "greeting"}


def load(path: Path | str, **fields: Any) -> list[Row]:
    return load_rows(DataPart(name_or_path=str(path), **fields)).train


def expected(k: int, right: str) -> Row:
    row = PIQA[k]
    source = f"{row['goal']}\nSolution 1: {row['sol1']}\nSolution 2: {row['sol2']}"
    return Row(source, right, task="qa")


# ---- files


def test_piqa_with_its_labels_beside(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", PIQA)
    (tmp_path / "train-labels.lst").write_text("0\n1\n")
    write_jsonl(tmp_path / "valid.jsonl", PIQA[1:])
    (tmp_path / "valid-labels.lst").write_text("0\n")
    rows = load_rows(DataPart(name_or_path=str(tmp_path)))
    assert rows.train == [expected(0, "Turn the lid."), expected(1, "Use a towel.")]
    assert rows.validation == [expected(1, "Wet them.")]
    assert load(tmp_path / "train.jsonl") == rows.train, "the file alone finds them too"


def test_piqas_labels_have_to_fit(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", PIQA)
    with pytest.raises(InputError, match=r"line 1 has no label; put the labels beside .*-labels\.lst"):
        load(file)
    (tmp_path / "train-labels.lst").write_text("0\n")
    with pytest.raises(InputError, match=r"train-labels\.lst holds 1 labels for the 2 rows of train\.jsonl"):
        load(file)
    (tmp_path / "train-labels.lst").write_text("0\n-1\n")
    with pytest.raises(InputError, match=r"line 2 has the label '-1'; .*hidden"):
        load(file)


def test_webquestions_as_a_json_list(tmp_path: Path) -> None:
    listed = [{"qId": f"wqr{i}", "qText": r["question"], "answers": r["answers"]} for i, r in enumerate(WEB)]
    for name in ("train", "val"):
        (tmp_path / f"{name}.json").write_text(json.dumps(listed, indent=1))
    rows = load_rows(DataPart(name_or_path=str(tmp_path)))
    capital = Row("what is the capital of france?", "Paris", ("Paris", "City of Paris"), "qa")
    assert rows.train == rows.validation == [capital, Row("who wrote hamlet?", "Shakespeare", task="qa")]


def test_dialogsum_has_one_summary_or_several(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "dialogsum.train.jsonl", [{**DIALOGUE, "summary": "They greet."}])
    several = {f"summary{i}": f"They greet {i}." for i in (1, 2, 3)}
    write_jsonl(tmp_path / "dialogsum.test.jsonl", [{**DIALOGUE, **several, "topic1": "x"}])
    rows = load_rows(DataPart(name_or_path=str(tmp_path)), EvaluatePart(test="test"))
    assert rows.train == [Row(DIALOGUE["dialogue"], "They greet.", task="summarization")]
    assert rows.test[0].references == ("They greet 1.", "They greet 2.", "They greet 3.")
    assert rows.test[0].target == "They greet 1."


# ---- named fields come first


def test_what_the_user_names_is_taken_at_its_word(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", [{**WEB[0], "context": "France is a country."}])
    rows = load(file, source="context", target="answers")
    assert rows == [Row("France is a country.", "Paris", ("Paris", "City of Paris"))]
    with pytest.raises(InputError, match=r"data\.source: .*no field 'dialog'"):
        load(file, source="dialog", target="answers")
    ours = write_jsonl(
        tmp_path / "ours.jsonl", [{"source": "a", "target": "b", "dialogue": "c", "summary": "d"}]
    )
    assert load(ours) == [Row("a", "b")], "the default fields, where they are there"


def test_the_task_may_be_set_against_the_layout(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", WEB)
    assert {row.task for row in load(file)} == {"qa"}
    assert {row.task for row in load(file, task="summarization")} == {"summarization"}


def test_a_row_without_layout_names_its_fields(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", [{"goal": "x", "sol1": "y"}])
    with pytest.raises(InputError, match=r"data\.source: .*no field 'source'.*goal, sol1"):
        load(file)


# ---- the hub's, by datasets' own objects


def made(splits: dict[str, list[dict[str, Any]]]) -> Any:
    import datasets

    return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()})


def test_a_text_without_a_pair_is_not_led_to_learn_itself(tmp_path: Path) -> None:
    """What the hint says works, for the field that everybody calls `text` and for any other."""
    for name in ("text", "body"):
        file = tmp_path / f"{name}.jsonl"
        file.write_text(json.dumps({name: "to be learnt", "id": 7}) + "\n")
        with pytest.raises(
            InputError, match=f"data.task: .*one field of text, '{name}'.*data.target = \"{name}\""
        ):
            load_rows(DataPart(name_or_path=str(file)))
        twice = DataPart(name_or_path=str(file), source=name, target=name)
        with pytest.raises(InputError, match=r'data\.target: .*repeat what it reads.*task = "causal"'):
            load_rows(twice)
        for part in (
            twice.model_copy(update={"task": "causal"}),
            DataPart(name_or_path=str(file), task="causal", target=name),
        ):
            (row,) = load_rows(part).train
            assert (row.source, row.target) == ("", "to be learnt")


def test_piqa_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    splits = {
        "train": [{**PIQA[0], "label": 1}, {**PIQA[1], "label": 1}],
        "test": [{**PIQA[0], "label": -1}],
        "validation": [{**PIQA[1], "label": 0}],
    }
    asked: list[tuple[Any, ...]] = []

    def load_dataset(*names: str, **options: Any) -> Any:
        asked.append((*names, *options.values()))
        if "revision" not in options:
            raise RuntimeError("Dataset scripts are no longer supported, but found piqa.py")
        return made(splits)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = load_rows(DataPart(name_or_path="ybisk/piqa"))
    assert [row.target for row in rows.train] == ["Turn the jar upside down.", "Use a towel."]
    assert [row.target for row in rows.validation] == ["Wet them."]
    assert asked == [("ybisk/piqa", False), ("ybisk/piqa", "refs/convert/parquet", False)], (
        "the hub's copy of what scripts make, and no script"
    )
    with pytest.raises(InputError, match=r"label -1; .*hidden"):
        load_rows(DataPart(name_or_path="ybisk/piqa"), EvaluatePart(test="test"))
    with pytest.raises(InputError, match=r"evaluate\.test: .*no split 'tset'; choose one of train, test"):
        load_rows(DataPart(name_or_path="ybisk/piqa"), EvaluatePart(test="tset"))


def test_webquestions_and_scitldr_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    sets = {
        ("stanfordnlp/web_questions",): made({"train": WEB, "test": WEB[:1]}),
        ("allenai/scitldr", "Abstract"): made({"train": [{"source": ["A.", "B."], "target": ["t", "u"]}]}),
        ("allenai/scitldr", "AIC"): made({"train": [{"source": ["C."], "target": ["v"]}]}),
    }
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, trust_remote_code: sets[names])
    rows = load_rows(DataPart(name_or_path="stanfordnlp/web_questions"))
    assert rows.train[0].references == ("Paris", "City of Paris")
    assert rows.validation == [], "it has no validation split, and its test split is not looked at unasked"
    assert load("allenai/scitldr") == [Row("A. B.", "t", ("t", "u"))]
    assert load("allenai/scitldr", subset="AIC") == [Row("C.", "v")]


# ---- the real ones


def shared(name: str) -> Path:
    for root in Path(__file__).resolve().parents:
        folder = root.parent / "shared" / "data" / name
        if folder.is_dir():
            return folder
    pytest.skip(f"the shared data folder with {name} is not beside this checkout")


def test_scitldr_whole() -> None:
    rows = load_rows(
        DataPart(name_or_path=str(shared("scitldr")), validation_limit=9999), EvaluatePart(test="test")
    )
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (1992, 619, 618)
    assert {len(row.references) for row in rows.train} == {1}
    assert max(len(row.references) for row in rows.test) > 2


def test_dialogsum_whole() -> None:
    rows = load_rows(
        DataPart(name_or_path=str(shared("dialogsum")), validation_limit=9999), EvaluatePart(test="test")
    )
    assert (len(rows.train), len(rows.validation), len(rows.test)) == (12_460, 500, 500)
    assert {len(row.references) for row in rows.test} == {3}
    assert rows.train[0].source.startswith("#Person1#: Hi, Mr. Smith.")


# ---- formats of instruction tuning


def test_prompt_and_completion_have_no_words_around(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "train.jsonl", [{"prompt": "The sky is", "completion": " blue."}])
    assert load_rows(DataPart(name_or_path=str(file))).train == [Row("The sky is", "blue.", task="causal")]
    named = DataPart(name_or_path=str(file), source="prompt", target="completion")
    assert load_rows(named).train == [Row("The sky is", "blue.")], "what the user names goes before"


def test_alpaca_with_and_without_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add.", "input": "1 2", "output": "3", "text": "whole"},
        {"instruction": "Greet.", "input": "", "output": "Hi"},
    ]
    file = write_jsonl(tmp_path / "train.jsonl", rows)
    assert load_rows(DataPart(name_or_path=str(file))).train == [
        Row("Add.\n\n### Input:\n1 2", "3", task="instruction"),
        Row("Greet.", "Hi", task="instruction"),
    ]
    assert load_rows(DataPart(name_or_path=str(file), task="qa")).train[1] == Row("Greet.", "Hi", task="qa")

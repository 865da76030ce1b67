"""Heads that were noted earlier are read from whatever holds them, and what holds none is refused."""

import json
from pathlib import Path

import pytest

from carbonsched.errors import InputError
from carbonsched.ledger.heads import Head, read_heads

HEAD = Head("6f" * 32, "7a" * 32, 12, 3)


def test_heads_come_back_from_json_a_folder_and_log_lines(tmp_path: Path) -> None:
    folder = tmp_path / "anchor"
    folder.mkdir()
    (folder / "heads.json").write_text(HEAD.line())
    log = tmp_path / "log.txt"
    log.write_text(
        f"Nov 28 12:00:00 box carbonsched[7]: INFO heartbeat: ledger: {HEAD.line()}\nanother line {{\n"
        f"INFO heartbeat: ledger: {HEAD.line()} \n"
        + json.dumps({"at": "2026-11-28T12:00:00.000Z", "message": f"ledger: {HEAD.line()}"})
    )
    (one,), two = read_heads(folder), read_heads(log)
    assert one.document() == HEAD.document()
    assert [head.document() for head in two] == [HEAD.document()] * 3
    assert two[1].source.endswith("log.txt, line 3")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line of it has heads"),
        ("a log\nwithout any\n", "no line of it has heads"),
        ("[]", "it has no heads"),
        ("{}", "heads.intervals is None"),
        ('{"heads":' + "[" * 100_000, "it is no JSON, and no line of it has heads"),
        ('{"heads": {"intervals": "6f", "journal": "7a"}}', "heads.intervals is '6f'"),
        ('{"heads": {"intervals": null, "journal": null}, "rows": null}', "heads.intervals is None"),
        (HEAD.line().replace("12", "-1"), "rows and entries are -1 and 3"),
        (HEAD.line().replace("12", "true"), "rows and entries are True and 3"),
    ],
)
def test_what_holds_no_heads_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "heads.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        read_heads(path)
    assert caught.value.field == "--against"


def test_a_path_that_is_not_there_and_a_folder_without_heads_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError):
            read_heads(path)

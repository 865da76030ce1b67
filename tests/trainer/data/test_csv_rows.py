"""CSV as other people have it: read as Python's csv module reads it, or refused with the line and the counts."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart
from trainer.data.csv_rows import csv_rows
from trainer.data.field_layouts import Row
from trainer.data.reading import load_rows


def read(text: str) -> list[tuple[str, dict[str, str]]]:
    return list(csv_rows(text, "x.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,target\na,b\na,b,c,d\n", "line 3 has 4 fields, the header has 2"),
        ("source,target\na,b\n\nonly\n", "line 4 has 1 fields, the header has 2"),
        ('source,target\n"two\nlines",b\nx,y,z\n', "line 4 has 3 fields, the header has 2"),
        ("source,target,target\na,b,c\n", "line 1 names the column 'target' 2 times"),
        ("id,source,id,target,id\n", "line 1 names the column 'id' 3 times"),
        ("source,target,,\na,b,,\nc,d,,e\n", "line 3 has text in a column that has no name"),
        ('source,target\na,b\nc,"d\ne,f\n', "line 3 opens a quote that is never closed"),
    ],
)
def test_rows_that_would_be_silently_wrong(text: str, message: str) -> None:
    with pytest.raises(InputError, match=r"data\.name_or_path: x\.csv: ") as caught:
        read(text)
    assert message in str(caught.value)


BREAKS = [
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
    "\x00",
    "\r\n",
    "\r",
    "\n",
    "\ufeff",
]


@pytest.mark.parametrize("character", BREAKS)
def test_a_character_that_ends_lines_elsewhere_stays_in_its_field(tmp_path: Path, character: str) -> None:
    file = tmp_path / "train.csv"
    quoted = f'"x{character}y"' if character in "\r\n" else f"x{character}y"
    file.write_bytes(f"source,target\n{quoted},c\nd,e\n".encode())
    rows = load_rows(DataPart(name_or_path=str(file))).train
    assert rows == [Row(f"x{character}y", "c"), Row("d", "e")]


def test_a_field_of_any_length_is_read_and_the_limit_of_others_stays(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    file = tmp_path / "train.csv"
    file.write_text(f"source,target\n{'w ' * 100_000}end,c\n")
    assert len(load_rows(DataPart(name_or_path=str(file))).train[0].source) == 200_003
    assert csv.field_size_limit() == limit


def test_what_sheets_add_is_no_fault() -> None:
    assert read(",source,target\r\n0,a,b\r\n\r\n1,c,d") == [
        ("line 2", {"": "0", "source": "a", "target": "b"}),
        ("line 4", {"": "1", "source": "c", "target": "d"}),
    ]
    assert [record["target"] for _, record in read("\nsource,target,,\na,b,,\n")] == ["b"]


ALPHABET = st.text(st.sampled_from('ab,"\n\r \x0b\x0c\x00\x1e\x85\u2028\ufeff\ud83d'), max_size=40)


@settings(deadline=None)
@given(rows=st.lists(st.lists(ALPHABET, min_size=2, max_size=2), max_size=6))
def test_rows_that_csv_wrote_come_back(rows: list[list[str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["source", "target"], *rows])
    assert [list(record.values()) for _, record in read(stream.getvalue())] == rows


@settings(deadline=None)
@given(text=ALPHABET)
def test_any_text_is_read_as_csv_reads_it_or_refused(text: str) -> None:
    try:
        found = [list(record.values()) for _, record in read("source,target\n" + text)]
    except InputError:
        return
    plain = csv.reader(io.StringIO("source,target\n" + text, newline=""))
    assert found == [cells for cells in plain if cells][1:]

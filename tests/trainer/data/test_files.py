"""JSON lines and Parquet as other people have them: read, or refused with one line that names file, line and cause."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fuzz import EDITS, FUZZ, damaged, read_or_refuse

from carbonsched.errors import InputError
from carbonsched.model.job import DataPart
from trainer.data.field_layouts import Row
from trainer.data.reading import load_rows

GOOD = '{"source": "a b", "target": "c"}\n'


def load(file: Path, **fields: Any) -> list[Row]:
    return load_rows(DataPart(name_or_path=str(file), **fields)).train


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r'{"source": "a \ud83d b", "target": "c"}', r"line 2: field 'source' holds half of a character"),
        (r'{"source": "a", "target": ["c", "\udc00"]}', r"line 2: field 'target' holds half of a character"),
        (r'{"\ud83d": "a", "target": "c"}', r"line 2 has no field 'source'.*\\ud83d"),
        ('{"source": "a", "source": "b", "target": "c"}', r"line 2 .*the field 'source' stands 2 times"),
        ('{"source": ' + "[" * 10_000 + "]" * 10_000 + ', "target": "c"}', "line 2 is nested too deep"),
        ('{"source": ' + '{"a":' * 100_000 + "1" + "}" * 100_001, "line 2 is nested too deep"),
        ('{"source": "a", "target": ' + "9" * 5000 + "}", "line 2 is not JSON"),
        ('{"source": "a\x00b", "target": "c"}', "line 2 is not JSON"),
    ],
    ids=lambda value: value[:24],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(GOOD + line + "\n")
    with pytest.raises(InputError, match=message) as caught:
        load(file)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


def test_half_a_character_in_a_field_that_is_not_read_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(GOOD + r'{"source": "a \ud83d\ude00", "target": "c", "note": "\ud83d"}')
    assert load(file) == [Row("a b", "c"), Row("a \U0001f600", "c")]


def test_a_table_by_columns_is_not_taken_for_one_row(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    file.write_text('{"source": ["a", "b", "c"], "target": ["x", "y", "z"]}')
    with pytest.raises(InputError, match="one object of columns, 3 values each"):
        load(file)


def test_a_json_list_is_refused_as_its_lines_are(tmp_path: Path) -> None:
    file = tmp_path / "train.json"
    file.write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"train\.json is nested too deep"):
        load(file)


def test_labels_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(GOOD)
    (tmp_path / "train-labels.lst").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"train-labels\.lst cannot be read"):
        load(tmp_path / "train.jsonl")


def write_table(file: Path, arrays: list[Any], names: list[str]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_arrays(arrays, names), file)
    return file


def test_parquet_with_a_column_twice_names_it(tmp_path: Path) -> None:
    import pyarrow as pa

    texts = pa.array(["a"])
    file = write_table(tmp_path / "train.parquet", [texts, texts, texts], ["source", "target", "target"])
    with pytest.raises(InputError, match="has the column 'target' 2 times; give every column a name"):
        load(file)


def test_parquet_values_that_python_cannot_hold_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    texts = pa.array(["a"])
    bad = pa.array([b"\xff\xfe"]).view(pa.string())
    far = pa.array([2**62], pa.timestamp("us"))
    twice = pa.StructArray.from_arrays([texts, texts], names=["x", "x"])
    for column in (bad, far, twice):
        file = write_table(tmp_path / "train.parquet", [texts, texts, column], ["source", "target", "more"])
        with pytest.raises(InputError, match="has values that cannot be read"):
            load(file)


def test_the_folders_of_a_parquet_file_are_no_columns(tmp_path: Path) -> None:
    import pyarrow as pa

    folder = tmp_path / "target=x"
    folder.mkdir()
    file = write_table(folder / "train.parquet", [pa.array(["a"]), pa.array(["b"])], ["source", "target"])
    assert load(file) == [Row("a", "b")]


# ---- packed, and Arrow


def packed(data: bytes, suffix: str) -> bytes:
    import gzip

    import pyarrow as pa

    if suffix == ".gz":
        return gzip.compress(data)
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_packed_text_is_read_with_its_lines(tmp_path: Path, suffix: str) -> None:
    lines = tmp_path / f"train.jsonl{suffix}"
    lines.write_bytes(packed((GOOD * 3).encode(), suffix))
    assert len(load(tmp_path)) == 3, "found in a folder, too"
    lines.write_bytes(packed((GOOD + "{").encode(), suffix))
    with pytest.raises(InputError, match=r"train\.jsonl\S*: line 2 is not JSON"):
        load(lines)
    lines.unlink()
    table = tmp_path / f"train.CSV{suffix}"
    table.write_bytes(packed('source,target\r\n"a\u2028b",c\r\n'.encode(), suffix))
    assert load(table) == [Row("a\u2028b", "c")]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_cannot_be_unpacked_whole_is_refused(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"train.jsonl{suffix}"
    whole = packed(
        "".join(f'{{"source": "a{i * i}", "target": "b{i}"}}\n' for i in range(400)).encode(), suffix
    )
    for data in (b"plain", whole[: len(whole) // 2], whole[:30] + b"\x00\xff\x00" + whole[33:], whole[:-4]):
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"cannot be unpacked|cannot be read"):
            load(file)


@pytest.mark.parametrize("form", ["file", "stream"])
def test_both_forms_of_arrow_are_read_or_refused(tmp_path: Path, form: str) -> None:
    import pyarrow as pa

    def write(names: list[str]) -> None:
        table = pa.Table.from_arrays([pa.array(["a b", "c"]), pa.array(["d", "e"])], names)
        opened = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with pa.OSFile(str(file), "wb") as sink, opened(sink, table.schema) as writer:
            writer.write_table(table)

    file = tmp_path / "train.arrow"
    write(["source", "target"])
    assert load(file) == [Row("a b", "d"), Row("c", "e")]
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="is not Arrow"):
        load(file)
    write(["source", "source"])
    with pytest.raises(InputError, match="has the column 'source' 2 times"):
        load(file)


def test_what_the_data_sets_library_saved_is_read(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"source": "a", "target": "b"}] * 3)
    rows.save_to_disk(tmp_path / "one")
    assert len(load(tmp_path / "one")) == 3
    both = datasets.DatasetDict({"train": rows, "validation": rows.select([1]), "test": rows.select([0, 2])})
    both.save_to_disk(tmp_path / "several")
    found = load_rows(DataPart(name_or_path=str(tmp_path / "several")))
    assert (len(found.train), len(found.validation), len(found.test)) == (3, 1, 0)
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"x")
    with pytest.raises(InputError, match="cannot be read as a saved data set"):
        load(tmp_path / "one")


# ---- fuzz

TEXT = st.text(st.sampled_from('ab\\ud83"\n\r \x0b\x85\u2028{}[]:,é\U0001f600'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
LINES = (
    st.fixed_dictionaries({"source": TEXT, "target": TEXT | st.lists(TEXT, max_size=2)}).map(json.dumps)
    | st.fixed_dictionaries({"source": VALUES, "target": VALUES}).map(json.dumps)
    | st.text(max_size=30).filter(lambda text: "\n" not in text and "\r" not in text)
)


@pytest.mark.fuzz
@FUZZ
@given(lines=st.lists(LINES, max_size=4))
def test_any_lines_are_rows_or_refused(tmp_path: Path, tried: Callable[[], None], lines: list[str]) -> None:
    file = tmp_path / "train.jsonl"
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    found = read_or_refuse(lambda: load(file))
    tried()
    # a byte order mark at the start of the file is no text
    texts = [line for line in "\n".join(lines).removeprefix("\ufeff").split("\n") if line.strip()]
    assert found is None or len(found) == len(texts)


@pytest.mark.fuzz
@FUZZ
@given(edits=EDITS)
def test_damaged_lines_are_rows_or_refused(
    tmp_path: Path, tried: Callable[[], None], edits: list[tuple[int, int, bytes]]
) -> None:
    file = tmp_path / "train.jsonl"
    for data in damaged((GOOD * 3).encode(), edits):
        file.write_bytes(data)
        found = read_or_refuse(lambda: load(file))
        tried()
        if found is not None:
            texts = re.split("\r\n|\r|\n", data.decode("utf-8-sig"))
            assert len(found) == sum(bool(text.strip()) for text in texts)


@pytest.mark.fuzz
@FUZZ
@given(edits=EDITS)
def test_a_damaged_csv_has_the_rows_that_csv_reads_or_is_refused(
    tmp_path: Path, tried: Callable[[], None], edits: list[tuple[int, int, bytes]]
) -> None:
    file = tmp_path / "train.csv"
    for data in damaged(b'source,target\na b,c\n"d, e","f\ng"\n"h ""i""",j\n', edits):
        file.write_bytes(data)
        found = read_or_refuse(lambda: load(file))
        tried()
        if found is not None:
            plain = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""))
            assert len(found) == len([cells for cells in plain if cells]) - 1


@pytest.mark.fuzz
@FUZZ
@given(data=st.binary(max_size=60), kind=st.sampled_from(["jsonl", "json", "csv", "txt", "parquet"]))
def test_any_bytes_are_rows_or_refused(
    tmp_path: Path, tried: Callable[[], None], data: bytes, kind: str
) -> None:
    file = tmp_path / f"train.{kind}"
    file.write_bytes(data)
    read_or_refuse(lambda: load(file))
    tried()


def test_parquet_whose_row_group_lost_a_row_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    texts = pa.array(["a b", "c", "d e"])
    file = write_table(tmp_path / "train.parquet", [texts, texts], ["source", "target"])
    whole = file.read_bytes()
    counts = [i for i, byte in enumerate(whole) if byte == 6]  # three, as Thrift writes it
    said = set()
    for at in counts:
        file.write_bytes(whole[:at] + bytes([4]) + whole[at + 1 :])
        try:
            assert len(load(file)) == 3
        except InputError as e:
            said.add(re.sub(r".*: ", "", e.problem))
    assert "it says that it has 3 rows, and holds 2" in said
    assert "it says that it has 2 rows, and holds 3" in said


@pytest.mark.fuzz
@FUZZ
@given(
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=10, max_size=10),
    cut=st.integers(0, 400),
)
def test_a_damaged_parquet_is_refused_or_keeps_its_rows(
    tmp_path: Path, tried: Callable[[], None], flips: list[tuple[int, int]], cut: int
) -> None:
    import pyarrow as pa

    file = tmp_path / "whole.parquet"
    if not file.exists():
        texts = pa.array(["a b", "c", "d e"])
        write_table(file, [texts, texts], ["source", "target"])
    whole = file.read_bytes()
    for at, byte in flips:
        data = bytearray(whole)
        data[at % len(data)] = byte
        (tmp_path / "train.parquet").write_bytes(bytes(data[: len(data) - cut] if cut < 20 else data))
        found = read_or_refuse(lambda: load(tmp_path / "train.parquet"))
        tried()
        assert found is None or len(found) == 3

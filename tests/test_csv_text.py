"""Rows of CSV with their lines; traces, curves and training data have the rest in their own tests."""

from typing import NoReturn

import pytest

from carbonsched.csv_text import csv_rows


def refuse(line: int, problem: str, hint: str) -> NoReturn:
    raise ValueError(f"line {line} {problem}; {hint}")


def test_rows_know_their_line_and_their_text() -> None:
    found = list(csv_rows('a,"b\r\nc"\r\n\r\nd\x0b,\x00\u2028\rlast', refuse))
    assert [row.line for row in found] == [1, 4, 5]
    assert [row.cells for row in found] == [["a", "b\r\nc"], ["d\x0b", "\x00\u2028"], ["last"]]
    assert found[0].raw == 'a,"b\r\nc"\r\n'


def test_an_open_quote_is_refused_by_the_line_that_opens_it() -> None:
    with pytest.raises(ValueError, match="line 2 opens a quote that is never closed"):
        list(csv_rows('a\n"b\nc\n', refuse))

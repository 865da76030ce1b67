"""Rows come back bit by bit, within the limit, from memory and from disk."""

import os
from pathlib import Path

import pytest
import torch

from trainer.training.activation_store import DiskStore, MemoryStore, RowStore


@pytest.mark.parametrize("kind", [MemoryStore, DiskStore])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_many_lengths(kind: type[RowStore], dtype: torch.dtype) -> None:
    store = kind(1e6)
    rows = {bytes([n]): torch.randn(n, 8).to(dtype) for n in range(1, 20)}
    assert all(store.put(key, row) for key, row in rows.items())
    for key, row in sorted(rows.items(), reverse=True):
        assert torch.equal(store.get(key), row)
    assert store.bytes == sum(row.nbytes for row in rows.values())
    assert b"x" not in store
    store.clear()
    assert (len(store), store.bytes) == (0, 0)
    assert store.put(b"x", rows[b"\x05"])
    assert torch.equal(store.get(b"x"), rows[b"\x05"])


@pytest.mark.parametrize("kind", [MemoryStore, DiskStore])
def test_the_limit_holds(kind: type[RowStore]) -> None:
    store = kind(100)
    assert store.put(b"a", torch.ones(20))
    assert not store.put(b"b", torch.ones(6))
    assert store.put(b"c", torch.ones(5))
    assert b"b" not in store
    assert torch.equal(store.get(b"a"), torch.ones(20))


def test_a_strided_row_is_kept_as_it_reads() -> None:
    store = DiskStore(1e6)
    row = torch.arange(12.0).reshape(3, 4).T
    store.put(b"a", row)
    assert torch.equal(store.get(b"a"), row)


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = DiskStore(1e6)
    store.put(b"a", torch.ones(1000))
    assert os.listdir(tmp_path) == []  # noqa: PTH208

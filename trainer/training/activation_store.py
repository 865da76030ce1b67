"""Keeps tensors under keys within a budget of bytes: in memory, or in an unnamed file that no crash leaves behind."""

import tempfile
import weakref
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class RowStore(ABC):
    """Tensors under keys, up to the limit of bytes.

    Example::

        store: RowStore = DiskStore(limit_bytes=4e9)
        if b"key" not in store and not store.put(b"key", states):
            log.warning("the store is full with %d rows", len(store))
    """

    def __init__(self, limit_bytes: float) -> None:
        self.limit, self.bytes = limit_bytes, 0
        self._rows: dict[bytes, Any] = {}

    def put(self, key: bytes, row: Tensor) -> bool:
        """Store a host tensor; False: it would exceed the limit and was not stored."""
        if self.bytes + row.nbytes > self.limit:
            return False
        self._rows[key] = self._write(row.contiguous())
        self.bytes += row.nbytes
        return True

    def get(self, key: bytes) -> Tensor:
        return self._read(self._rows[key])

    def clear(self) -> None:
        """Forget every row; a file's space is reused, and freed with the store."""
        self._rows.clear()
        self.bytes = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    @abstractmethod
    def _write(self, row: Tensor) -> Any: ...

    @abstractmethod
    def _read(self, kept: Any) -> Tensor: ...


class MemoryStore(RowStore):
    """In this process's memory.

    Example:
        >>> store = MemoryStore(limit_bytes=8)
        >>> store.put(b"a", torch.tensor([1.0, 2.0])), store.put(b"b", torch.tensor([3.0]))
        (True, False)
        >>> store.get(b"a")
        tensor([1., 2.])
    """

    def _write(self, row: Tensor) -> Any:
        return row

    def _read(self, kept: Any) -> Tensor:
        row: Tensor = kept
        return row


class DiskStore(RowStore):
    """In the folder for temporary files ($TMPDIR).

    Example:
        >>> store = DiskStore(limit_bytes=8)
        >>> store.put(b"a", torch.tensor([1.0, 2.0]))
        True
        >>> store.get(b"a")
        tensor([1., 2.])
    """

    def __init__(self, limit_bytes: float) -> None:
        super().__init__(limit_bytes)
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - for as long as the store
        weakref.finalize(self, self._file.close)

    def _write(self, row: Tensor) -> Any:
        self._file.seek(self.bytes)
        data = memoryview(row.reshape(-1).view(torch.uint8).numpy().data)
        while data:
            data = data[self._file.write(data) :]
        return self.bytes, row.nbytes, row.shape, row.dtype

    def _read(self, kept: Any) -> Tensor:
        at, size, shape, dtype = kept
        data = bytearray(size)
        left = memoryview(data)
        self._file.seek(at)
        while left:
            left = left[self._file.readinto(left) :]
        return torch.frombuffer(data, dtype=dtype).reshape(shape)

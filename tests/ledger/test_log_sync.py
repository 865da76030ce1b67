"""Commits that do not wait for the disk, and the sync that does: once for all, and only for who has committed."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.job_history import T0, interval

from carbonsched.errors import LedgerError
from carbonsched.ledger import log_sync
from carbonsched.ledger.ledger import Ledger


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were synced by us."""
    seen: list[str] = []
    fsync: Callable[[int], None] = os.fsync

    def noting(fd: int) -> None:
        seen.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        fsync(fd)

    monkeypatch.setattr(log_sync.os, "fsync", noting)
    return seen


def open_later(folder: Path) -> Ledger:
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")
    ledger.sync_later()
    return ledger


def test_a_commit_does_not_wait_and_a_sync_waits_once_for_all(tmp_path: Path, syncs: list[str]) -> None:
    with open_later(tmp_path) as ledger:
        with ledger.transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
            assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
        for second in range(3):
            ledger.append([interval(T0, 10, 500 + second, board=f"d{second}")])
        assert syncs == []
        ledger.sync()
        ledger.sync()
        assert syncs == ["ledger.db-wal"]
        other = threading.Thread(target=ledger.sync)
        ledger.append([interval(T0, 10, 500, board="d9")])
        other.start()
        other.join()
        assert syncs == ["ledger.db-wal"], "a thread that wrote nothing waits for nobody"
        ledger.sync()
        assert len(syncs) == 2


def test_the_log_is_folded_back_now_and_then(
    tmp_path: Path, syncs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_sync, "_FOLD_COMMITS", 4)
    with open_later(tmp_path) as ledger:
        for second in range(5):
            ledger.append([interval(T0, 10, 500, board=f"d{second}")])
        ledger.sync()
        (tmp_path / "copy").mkdir()
        shutil.copy(tmp_path / "ledger.db", tmp_path / "copy")  # without its log
        with Ledger.open(f"sqlite:///{tmp_path / 'copy' / 'ledger.db'}") as copy:
            assert copy.totals().energy_mj == 2500
        assert ledger.totals().energy_mj == 2500
        assert ledger.verify().ok


def test_a_sync_that_fails_is_said_and_tried_again(
    tmp_path: Path, syncs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_later(tmp_path) as ledger:
        ledger.append([interval(T0, 10, 500)])
        with monkeypatch.context() as patch:

            def fail(_: int) -> None:
                raise OSError(5, "Input/output error")

            patch.setattr(log_sync.os, "fsync", fail)
            with pytest.raises(
                LedgerError, match="Input/output error; a power cut may lose what was written last"
            ):
                ledger.sync()
        ledger.sync()
        assert syncs == ["ledger.db-wal"]


def test_a_ledger_in_memory_has_no_disk_to_wait_for() -> None:
    with Ledger.open("sqlite://") as ledger:
        ledger.sync_later()
        ledger.append([interval(T0, 10, 500)])
        ledger.sync()
        assert ledger.totals().energy_mj == 500

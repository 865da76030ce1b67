"""Documents as files: whole or not there, and never an exception for one that somebody else tore."""

import logging
import os
from pathlib import Path

import pytest

from carbonsched.model.files import load, overwrite, save
from carbonsched.model.protocol import FrontierPoint
from carbonsched.model.views import ErrorBody


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    for rho in (0.4, 0.5):
        save(path, FrontierPoint(rho=rho, importance=1.0))
        assert load(path, FrontierPoint) == FrontierPoint(rho=rho, importance=1.0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["point.json"]


def test_a_document_is_written_over_in_its_place_and_no_longer_than_that(tmp_path: Path) -> None:
    path = tmp_path / "point.json"
    save(path, FrontierPoint(rho=0.123456789, importance=1.0))
    inode, size = path.stat().st_ino, path.stat().st_size
    overwrite(path, FrontierPoint(rho=0.5, importance=1.0))
    assert load(path, FrontierPoint) == FrontierPoint(rho=0.5, importance=1.0)
    assert (path.stat().st_ino, path.stat().st_size) == (inode, size), "no block is asked for"
    with pytest.raises(OSError, match="No space left"):
        overwrite(path, ErrorBody(error="x" * 100_000, exit_code=1))
    assert load(path, FrontierPoint) == FrontierPoint(rho=0.5, importance=1.0)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        overwrite(tmp_path / "link", FrontierPoint(rho=0.9, importance=1.0))


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "point.json"
    save(path, FrontierPoint(rho=0.4, importance=1.0))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(path, FrontierPoint(rho=0.9, importance=1.0))
    monkeypatch.undo()
    assert load(path, FrontierPoint) == FrontierPoint(rho=0.4, importance=1.0)


@pytest.mark.parametrize("data", [b"", b'{"rho": 0.4', b"\xff\x00", b"[]", b'{"rho": NaN, "importance": 1}'])
def test_a_torn_one_is_not_known_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    path = tmp_path / "point.json"
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert load(path, FrontierPoint) is None
    assert str(path) in caplog.text
    assert len(caplog.records) == 1


def test_one_that_is_not_there_is_nothing_to_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path / "point.json", FrontierPoint) is None
    assert not caplog.records

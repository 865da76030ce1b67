"""A box on a real socket, and the terminal's width held still."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.box import Box, serving


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARBONSCHED_SOCKET", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("carbonsched.cli.wait.POLL_S", 0.02)
    monkeypatch.setattr("carbonsched.cli.logs.POLL_S", 0.02)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.fixture
def socket(box: Box, tmp_path: Path) -> Iterator[Path]:
    with serving(box, tmp_path / "api.sock") as path:
        yield path

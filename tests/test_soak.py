"""A few minutes of ticks and some hundred requests leave nothing behind; eight hours and 100,000 by `python -m support.soak`."""

from pathlib import Path

import pytest
from support.soak import Soak


@pytest.mark.slow
def test_ticks_and_requests_leave_no_files_threads_or_memory_behind(tmp_path: Path) -> None:
    soak = Soak(tmp_path, hours=0.05, requests=200).run()
    assert soak.grown() == []
    assert set(soak.answered) <= {200, 201, 404, 409}, soak.answered

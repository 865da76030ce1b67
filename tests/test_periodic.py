"""Work in a thread of its own: it goes on whatever it raises, and hangs without holding anybody up."""

import threading
import time

import pytest

from carbonsched.periodic import Periodic


def test_it_goes_on_after_a_failure_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    often, runs = threading.Event(), []

    def fail() -> None:
        runs.append(time.monotonic())
        if len(runs) == 5:
            often.set()
        raise ValueError("no")

    work = Periodic("tick", fail, every_s=0.01)
    work.start()
    assert often.wait(5.0)
    assert work.stop(5.0)
    assert len(caplog.records) == 1
    assert "tick failed" in caplog.text


def test_what_was_missed_is_not_made_up_for() -> None:
    runs: list[float] = []
    thrice = threading.Event()

    def slow() -> None:
        runs.append(time.monotonic())
        if len(runs) == 1:
            time.sleep(0.2)
        if len(runs) == 3:
            thrice.set()

    work = Periodic("tick", slow, every_s=0.05)
    work.start()
    assert thrice.wait(5.0)
    work.stop(5.0)
    assert runs[2] - runs[1] > 0.02, "four were missed and none of them is run after"


def test_work_that_hangs_keeps_nobody() -> None:
    free = threading.Event()
    work = Periodic("poll", free.wait, every_s=1.0)
    work.start()
    assert not work.first.wait(0.05)
    before = time.monotonic()
    assert not work.stop(wait_s=0.0)
    assert time.monotonic() - before < 1.0
    free.set()

"""Polls of feeds: by the wall clock, whatever it is set to, and in nobody's way."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from carbonsched.polling import FromNow, Polling


@pytest.mark.parametrize(
    "away", [timedelta(), timedelta(seconds=5), timedelta(days=3650), timedelta(days=-300)]
)
def test_the_next_poll_is_an_interval_from_now_whatever_was_missed(away: timedelta) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert FromNow(60.0).get_next_fire_time(now - away, now) == now + timedelta(seconds=60)


def test_it_goes_on_after_a_failure_and_says_it(caplog: pytest.LogCaptureFixture) -> None:
    often, runs = threading.Event(), []

    def fail() -> None:
        runs.append(1)
        if len(runs) == 3:
            often.set()
        raise ValueError("no")

    polling = Polling(fail, every_s=0.02)
    polling.start()
    assert often.wait(5.0)
    polling.stop()
    assert "ValueError" in caplog.text


def test_a_poll_that_hangs_is_not_begun_again_and_keeps_nobody() -> None:
    free, runs = threading.Event(), []

    def hang() -> None:
        runs.append(1)
        free.wait()

    polling = Polling(hang, every_s=0.02)
    polling.start()
    assert not polling.first.wait(0.2)
    before = time.monotonic()
    polling.stop()
    assert time.monotonic() - before < 1.0
    assert len(runs) == 1
    free.set()


def test_after_the_clock_was_set_it_is_done_at_once() -> None:
    done = threading.Event()
    polling = Polling(done.set, every_s=3600.0)
    polling.start()
    assert done.wait(5.0)
    done.clear()
    polling.restart()
    assert done.wait(5.0)
    polling.stop()


def test_a_clock_set_while_it_is_being_done_has_it_done_once_more() -> None:
    begun, free, runs = threading.Event(), threading.Event(), []

    def work() -> None:
        runs.append(1)
        begun.set()
        free.wait(5.0)

    polling = Polling(work, every_s=3600.0)
    polling.start()
    assert begun.wait(5.0)
    begun.clear()
    polling.restart()
    assert not begun.wait(0.1)
    free.set()
    assert begun.wait(5.0)
    polling.stop()
    assert len(runs) == 2

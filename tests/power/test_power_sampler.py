"""Its thread: runs while boards are watched, holds nobody up where the driver hangs."""

import threading
import time
from collections.abc import Callable

from carbonsched.clock import SystemClock
from carbonsched.power.power_sampler import PowerSampler
from carbonsched.power.power_trace import PowerReading

CLOCK = SystemClock()
PATIENCE_S = 20.0


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "power"]


def until(true: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


def test_there_is_a_thread_only_while_boards_are_watched() -> None:
    asked: list[str] = []

    def read(board: str) -> float:
        asked.append(board)
        return 100.0

    sampler = PowerSampler(CLOCK, 100.0, read)
    assert threads() == []
    sampler.watch([])
    assert threads() == []
    sampler.watch(["a", "b"])
    until(lambda: asked.count("b") >= 3)
    sampler.watch(["b"])
    until(lambda: asked[-4:] == ["b"] * 4)
    sampler.watch([])
    assert threads() == []
    sampler.watch(["a"])
    assert len(threads()) == 1
    sampler.close()
    assert threads() == []


def test_readings_are_taken_once_and_up_to_a_time() -> None:
    watts = iter(range(10_000))
    sampler = PowerSampler(CLOCK, 100.0, lambda board: float(next(watts)))
    found: list[PowerReading] = []
    before = CLOCK.awake()
    sampler.watch(["a"])

    def take(until_s: float) -> None:
        new = sampler.take("a", until_s)
        assert all(reading.at_s <= until_s for reading in new)
        found.extend(new)

    until(lambda: take(CLOCK.awake() - 0.02) or len(found) >= 10)
    sampler.close()
    take(CLOCK.awake())
    assert [reading.watts for reading in found] == [float(n) for n in range(len(found))]
    assert all(before <= reading.at_s for reading in found)
    assert sampler.take("a", CLOCK.awake()) == ()
    assert sampler.take("never watched", CLOCK.awake()) == ()


def test_what_does_not_answer_is_a_gap() -> None:
    answers = iter([100.0, None, 300.0, *[None] * 10_000])
    asked = threading.Event()

    def read(board: str) -> float | None:
        value = next(answers)
        if value == 300.0:
            asked.set()
        return value

    sampler = PowerSampler(CLOCK, 100.0, read)
    sampler.watch(["a"])
    assert asked.wait(PATIENCE_S)
    sampler.close()
    assert [reading.watts for reading in sampler.take("a", CLOCK.awake())] == [100.0, 300.0]


def test_a_driver_that_hangs_holds_up_neither_the_readings_nor_the_end() -> None:
    hangs, goes_on = threading.Event(), threading.Event()
    first = [True]

    def read(board: str) -> float:
        if first:
            first.clear()
            return 100.0
        hangs.set()
        goes_on.wait(60.0)
        return 200.0

    sampler = PowerSampler(CLOCK, 100.0, read)
    sampler.watch(["a"])
    assert hangs.wait(PATIENCE_S)
    began = time.monotonic()
    assert [reading.watts for reading in sampler.take("a", CLOCK.awake())] == [100.0]
    sampler.watch(["a", "b"])
    sampler.close()
    assert time.monotonic() - began < 30.0
    goes_on.set()
    until(lambda: threads() == [])

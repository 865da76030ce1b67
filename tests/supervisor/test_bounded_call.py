"""What may hang is asked in a thread, and waited for a moment."""

import threading

import pytest

from carbonsched.supervisor.bounded_call import BoundedCalls, CallTimeoutError


def test_an_answer_and_an_error_come_through() -> None:
    calls = BoundedCalls(patience_s=60.0)
    assert [calls.ask("a", lambda: 1), calls.ask("a", lambda: 2)] == [1, 2]
    with pytest.raises(ValueError, match="no such board"):
        calls.ask("a", lambda: (_ for _ in ()).throw(ValueError("no such board")))
    assert calls.ask("a", lambda: None) is None


def test_one_that_hangs_is_late_and_its_answer_is_the_next_ones() -> None:
    calls, go, asked = BoundedCalls(patience_s=0.01), threading.Event(), []

    def hang() -> int:
        asked.append(1)
        go.wait(60)
        return len(asked)

    for _ in range(3):
        with pytest.raises(CallTimeoutError):
            calls.ask("a", hang)
    assert len(asked) == 1
    calls.patience_s = 60.0
    assert calls.ask("b", lambda: "meanwhile") == "meanwhile"
    thread = calls._open["a"].thread
    go.set()
    thread.join(60)
    assert [calls.ask("a", hang), calls.ask("a", hang)] == [1, 2]


def test_an_answer_that_is_old_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, go = BoundedCalls(patience_s=0.0), threading.Event()
    with pytest.raises(CallTimeoutError):
        calls.ask("a", lambda: go.wait(60))
    thread = calls._open["a"].thread
    go.set()
    thread.join(60)
    monkeypatch.setattr("carbonsched.supervisor.bounded_call.FRESH_S", -1.0)
    calls.patience_s = 60.0
    assert calls.ask("a", lambda: "new") == "new"


def test_where_no_thread_is_left_it_is_late_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    calls = BoundedCalls(patience_s=10.0)
    with monkeypatch.context() as patched:
        patched.setattr("threading.Thread.start", none_left)
        with pytest.raises(CallTimeoutError):
            calls.ask("GPU-1", lambda: 1)
    assert calls.ask("GPU-1", lambda: 1) == 1

"""`carbonsched … | head`: nobody is told of an error, whatever the command prints, and exit codes that say something are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.box import Box

from carbonsched.model.job_state import JobState


def unread(*words: str, socket: Path, both: bool = False) -> tuple[int, bytes]:
    """Exit code and stderr of a command whose reader is gone before it prints. both: nobody reads its stderr either."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "carbonsched", "--socket", str(socket), *words],
            stdout=writer, stderr=writer if both else subprocess.PIPE, check=False, timeout=120,
        )  # fmt: skip
    finally:
        os.close(writer)
    return done.returncode, done.stderr or b""


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("ps",),
        ("ps", "-q"),
        ("ps", "--json"),
        ("top", "--json"),
        ("show", "job"),
        ("show", "job", "--json"),
        ("logs", "job"),
        ("logs", "-f", "job"),
        ("grid",),
        ("report", "--job", "job"),
        ("version", "--json"),
        ("config", "check", "--help"),
    ],
    ids=" ".join,
)
def test_what_only_shows_something_ends_quietly(words: tuple[str, ...], box: Box, socket: Path) -> None:
    entry = box.add()
    box.go(entry, JobState.RUNNING, "rho 0.600")
    box.log_file(entry).write_text("step 1\n" * 100_000)
    assert unread(*words, socket=socket) == (0, b"")
    assert unread(*words, socket=socket, both=True) == (0, b"")


def test_how_a_job_ended_is_told_by_the_exit_code_all_the_same(box: Box, socket: Path) -> None:
    entry = box.add()
    box.go(entry, JobState.FAILED, "no such column")
    for more in ((), ("--json",)):
        assert unread("wait", entry.id, *more, socket=socket) == (4, b"")


def test_an_error_is_one(box: Box, socket: Path) -> None:
    code, said = unread("show", "nobody", socket=socket)
    assert (code, said.count(b"\n")) == (2, 1)
    assert unread("show", "nobody", socket=socket, both=True)[0] == 2


@pytest.mark.parametrize(
    "words", [("ps",), ("ps", "--json"), ("--help",), ("version", "--json")], ids=" ".join
)
def test_what_a_full_disk_does_not_take_is_one_line(words: tuple[str, ...], socket: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "carbonsched", "--socket", str(socket), *words],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=120,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        1,
        "carbonsched: the output cannot be written: No space left on device; free space there, or write it elsewhere\n",
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("words", "code"), [("ps", 0), ("--help", 0), ("ps --no-such-flag", 2)])
def test_a_stream_that_was_closed_takes_nothing(closed: str, words: str, code: int, socket: Path) -> None:
    line = f'exec "$0" -m carbonsched --socket "$1" {words} {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, str(socket)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr + done.stdout
    assert (done.stderr == "") == (code == 0 or "2>&-" in closed)
    assert "no-such-flag" not in done.stdout

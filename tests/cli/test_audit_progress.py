"""On a terminal a verification shows how far it came, the daemon's own as well; a pipe gets the answer alone."""

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.box import Box, serving
from support.command import cli

from carbonsched.model.audit import AuditProgress, AuditResult


def test_a_terminal_sees_how_far_the_daemon_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box, seen = Box(tmp_path), threading.Event()

    def audit() -> AuditResult:
        assert seen.wait(60), "nobody asked how far it came"
        return box.audit_result

    def progress() -> AuditProgress:
        seen.set()
        return AuditProgress(part="rows", share=0.37)

    monkeypatch.setattr(box, "audit", audit)
    monkeypatch.setattr(box, "audit_progress", progress)
    ours, theirs = pty.openpty()
    with serving(box, tmp_path / "api.sock") as socket:
        words = [sys.executable, "-m", "carbonsched", "--socket", str(socket), "audit", "verify"]
        ran = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = _read(ours)
        out, _ = ran.communicate(timeout=60)
    assert ran.returncode == 0
    assert out.startswith(b"ok: 7 rows verify")
    assert b"verifying rows" in shown
    assert b"37%" in shown


def test_a_pipe_asks_nothing_but_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path)

    def never() -> AuditProgress:
        raise AssertionError

    monkeypatch.setattr(box, "audit_progress", never)
    with serving(box, tmp_path / "api.sock") as socket:
        ran = cli("audit", "verify", socket=socket)
    assert (ran.code, ran.err) == (0, "")


def _read(terminal: int) -> bytes:
    """All that is written until the other end is closed."""
    found = b""
    try:
        while piece := os.read(terminal, 4096):
            found += piece
    except OSError:  # as Linux says that nobody has the other end any more
        pass
    finally:
        os.close(terminal)
    return found

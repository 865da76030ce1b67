"""Secrets of feeds, looked for in all that a daemon writes and says while its providers repeat them and fail."""

import gzip
import os
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.daemon import CONFIG, DaemonProcess
from support.http_server import Reply, Server, serve
from support.providers import CASES
from support.providers.case import LENT, SECRET, ProviderCase, world

pytestmark = pytest.mark.slow

SECRETS = (SECRET.encode(), LENT.encode())
HIDDEN = [case for case in CASES if case.env and case.basis == "average-lifecycle"]
"""One chain counts one basis."""


def tattling(case: ProviderCase, *, fails: bool) -> AbstractContextManager[Server]:
    """A server that repeats the secrets in whatever it says."""
    at = world(datetime.now(UTC), case.step)
    echoed = LENT.encode() if case.login else SECRET.encode()

    def answer(path: str) -> Reply:
        try:
            reply = case.answer(at, path)
        except (KeyError, ValueError):  # what its case does not know, as a probe asks for
            return Reply(b'{"error": "no such key: ' + echoed + b'"}', 404)
        if case.login and path.startswith(case.login):
            return reply
        if fails:
            return Reply(b'{"error": "no such key: ' + echoed + b'"}', 403, {"X-Echo": SECRET})
        said = reply.body.replace(b"{", b'{"echo": "' + echoed + b'", ', 1)
        return replace(reply, body=said if reply.body.startswith(b"{") else reply.body)

    return serve(answer)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Where → what: files, logs, answers of commands, the command line of the process."""
    root = tmp_path_factory.mktemp("canary")
    secret_file = root / "token"
    secret_file.write_text(SECRET)
    secret_file.chmod(0o600)
    with ExitStack() as stack:
        feeds = ""
        env = {}
        for i, case in enumerate(HIDDEN):
            server = stack.enter_context(tattling(case, fails=i % 2 == 0))
            env |= case.env
            lines = {"provider": case.name, "url": server.url, "every": 1.0} | case.keys
            feeds += "[[feeds]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in lines.items())
        before, _, after = CONFIG.partition("[[feeds]]")
        config = before + feeds + "[power]" + after.partition("[power]")[2]
        daemon = DaemonProcess(root / "box", config, env).start("--debug")
        try:
            found = {
                "ps": daemon.cli("ps", "--json").stdout.encode(),
                "grid": daemon.cli("grid", "--forecast", "24", "--json").stdout.encode(),
                "probe": _both(daemon, "grid", "--probe", "--config", str(root / "box" / "config.toml")),
                "report": _both(daemon, "report", "--format", "json"),
                "argv": Path(f"/proc/{daemon.process.pid if daemon.process else 0}/cmdline").read_bytes(),
            }
            time.sleep(2.0)
        finally:
            daemon.stop()
    for path in sorted((root / "box").rglob("*")):
        if path.is_file():
            raw = path.read_bytes()
            found[str(path.relative_to(root))] = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return found


def _both(daemon: DaemonProcess, *command: str) -> bytes:
    done = daemon.cli(*command, check=False)
    return (done.stdout + done.stderr).encode()


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def test_no_secret_is_in_anything_that_is_written_or_said(said: dict[str, bytes]) -> None:
    found = [
        (where, text[max(text.index(secret) - 150, 0) : text.index(secret) + 60])
        for where, text in said.items()
        for secret in SECRETS
        if secret in text
    ]
    assert found == []


def test_there_was_something_to_look_through(said: dict[str, bytes]) -> None:
    assert len(HIDDEN) >= 3
    assert any(where.endswith(".gz") for where in said)
    assert b"HTTP 403" in said["box/daemon.log"]
    assert b"HTTP 403" in said["probe"]
    assert b"Retrying" not in said["box/daemon.log"]
    assert os.environ.get(next(iter(HIDDEN[0].env))) is None

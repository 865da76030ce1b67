"""The real daemon tells of real jobs: by a program, over HTTP, and by mail through a program that stands in for sendmail."""

import json
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from support.daemon import CONFIG, DaemonProcess
from support.http_server import Reply, Server, serve
from support.models import tiny_llama, tiny_spec, word_data

HOOK = """#!/bin/sh
# one file a notification, whole when it has its name
file=$(mktemp {told}/new.XXXXXX)
{{ pwd; env | sort; cat; }} > "$file"
mv "$file" "{told}/$CARBONSCHED_JOB.$CARBONSCHED_EVENT"
"""
SENDMAIL = """#!/bin/sh
file=$(mktemp {mails}/new.XXXXXX)
{{ echo "X-Arguments: $*"; cat; }} > "$file"
mv "$file" "$file.mail"
"""
NOTIFY = """
[[notify]]
command = "{box}/hook"

[[notify]]
webhook = "{url}/told"
token_file = "{box}/token"

[[notify]]
mail = "ops@example.org"
sendmail = "{box}/sendmail"
on = ["failed", "stopped", "at-risk"]

[[notify]]
mail = "owner"
sendmail = "{box}/sendmail"
on = []
"""


@pytest.fixture
def site() -> Iterator[Server]:
    """It refuses the first request: that is to be tried again."""
    first = [Reply(status=503)]
    with serve(lambda _: first.pop() if first else Reply()) as server:
        yield server


@pytest.fixture
def box(tmp_path: Path, site: Server) -> Iterator[DaemonProcess]:
    root = tmp_path / "box"
    for name in ("told", "mails"):
        (root / name).mkdir(parents=True)
    for name, text in (("hook", HOOK), ("sendmail", SENDMAIL)):
        (root / name).write_text(text.format(told=root / "told", mails=root / "mails"))
        (root / name).chmod(0o755)
    (root / "token").write_text("t0ken\n")
    (root / "token").chmod(0o600)
    daemon = DaemonProcess(root, CONFIG + NOTIFY.format(box=root, url=site.url)).start()
    yield daemon
    assert daemon.stop() == 0


def submit(box: DaemonProcess, spec: dict[str, Any]) -> str:
    """Straight to the socket: what the trainer's check says of a job is no matter here."""
    return str(box.post("/v1/jobs", {"spec": spec})["id"])


def until(holds: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it was not delivered"
        time.sleep(0.2)


def mails(box: DaemonProcess) -> list[tuple[str, str, str]]:
    """(arguments, subject, text) of what was sent."""
    found = []
    for path in (box.root / "mails").glob("*.mail"):
        mail = message_from_bytes(path.read_bytes())
        found.append((str(mail["X-Arguments"]), str(mail["Subject"]), str(mail.get_payload())))
    return found


def hooked(told: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """(job, event) → what the hook got, each in an environment that holds nothing of the daemon's."""
    found = {}
    for path in told.iterdir():
        where, *env, document = path.read_text().splitlines()
        said = json.loads(document)
        found[said["job"], said["event"]] = said
        assert where == "/"
        names = {line.partition("=")[0] for line in env} - {"PWD", "SHLVL", "_", "OLDPWD"}
        assert names == {"PATH", "LANG", "CARBONSCHED_EVENT", "CARBONSCHED_JOB"}
        assert f"CARBONSCHED_JOB={said['job']}" in env
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_each_way_tells_of_each_end(box: DaemonProcess, site: Server, tmp_path: Path) -> None:
    model, data = tiny_llama(tmp_path / "model"), word_data(tmp_path / "data", train=64)
    carbon = {"budget_g": 500.0, "may_pause": False}
    doomed = word_data(tmp_path / "doomed", train=64)
    failed = submit(box, tiny_spec(model, doomed, carbon=carbon) | {"queue": {"hold": True}})
    for path in doomed.iterdir():
        path.unlink()
    good = tiny_spec(model, data, carbon=carbon, train={"epochs": 1}) | {"notify": ["finished"]}
    finished = submit(box, good)
    # so much that no speed of this machine makes it too little before it is lowered
    long = tiny_spec(model, data, carbon=carbon | {"budget_g": 1e6}, train={"epochs": 20_000, "segment": 500})
    spent = submit(box, long)
    box.until(finished, lambda j: j["state"] == "finished")
    running = box.until(spent, lambda j: j["state"] == "running" and (j["step"] or 0) > 0)
    box.post(f"/v1/jobs/{spent}/budget", {"grams": running["spent_g"] * 1.5 + 0.05})
    box.until(spent, lambda j: j["state"] == "stopped")
    box.cli("release", failed)
    box.until(failed, lambda j: j["state"] == "failed")

    wanted = {
        (finished, "finished"): "done",
        (spent, "at-risk"): "of the steps are left",
        (spent, "stopped"): "budget",
        (failed, "failed"): "data",
    }
    told = box.root / "told"
    until(lambda: len([path for path in told.iterdir() if "new." not in path.name]) >= len(wanted))
    until(lambda: len(site.sent) >= len(wanted) + 1)
    until(lambda: len(mails(box)) >= 4)

    by_hook = hooked(told)
    assert by_hook.keys() == wanted.keys()
    for key, words in wanted.items():
        assert words in by_hook[key]["reason"]
    assert by_hook[finished, "finished"]["spent_g"] == pytest.approx(
        box.get(f"/v1/jobs/{finished}")["spent_g"], rel=0.05
    )

    by_web = [json.loads(body) for body in site.sent]
    assert by_web[0] == by_web[1], "the one that was refused came again"
    assert {(said["job"], said["event"]): said for said in by_web}.keys() == wanted.keys()
    assert by_web[0]["text"].startswith(f"{finished} finished: done (")
    assert {headers["Authorization"] for headers in site.headers} == {"Bearer t0ken"}

    sent = {(arguments, subject.split(":")[1].strip()) for arguments, subject, _ in mails(box)}
    assert sent == {
        ("-i -- ops@example.org", f"{spent} at risk"),
        ("-i -- ops@example.org", f"{spent} stopped"),
        ("-i -- ops@example.org", f"{failed} failed"),
        (f"-i -- {by_hook[finished, 'finished']['owner']}", f"{finished} finished"),
    }
    text = next(text for _, subject, text in mails(box) if "stopped" in subject)
    assert f"carbonsched show {spent}" in text
    log = (box.root / "daemon.log").read_text()
    assert "t0ken" not in log
    assert log.count(f"job {spent}: told ") == 6

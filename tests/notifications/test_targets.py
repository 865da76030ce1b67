"""Each way of delivery, real: programs, an HTTP server on loopback, a sendmail; and what is refused."""

import json
import os
import time
from pathlib import Path

import pytest
from support.http_server import Reply, Server, serve

from carbonsched.errors import InputError
from carbonsched.model.notification import Notification
from carbonsched.notifications import targets
from carbonsched.notifications.settings import NotifyConfig
from carbonsched.notifications.targets import DeliveryError, target_of

NASTY = "$(touch /tmp/pwned); \"'`id`\nBcc: all@example.org"


def told(event: str = "failed", owner: str = "root", reason: str = NASTY) -> Notification:
    return Notification.parse(
        {"event": event, "at": "2026-11-22T10:00:00Z", "job": "tiny-7f3a1c", "name": "tiny", "owner": owner,
         "reason": reason, "spent_g": 12.5, "budget_g": 20.0, "energy_j": 1e5, "estimated": True}
    )  # fmt: skip


def program(folder: Path, body: str, mode: int = 0o755) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return str(path)


def test_command_is_given_the_document_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTTIME_TOKEN", "s3cret")
    body = f'cat > {tmp_path}/in; echo "$#" > {tmp_path}/argc; env > {tmp_path}/env; pwd > {tmp_path}/cwd'
    target_of(NotifyConfig(command=program(tmp_path, body))).deliver(told())
    assert Notification.parse(json.loads((tmp_path / "in").read_text())) == told()
    env = (tmp_path / "env").read_text()
    assert "CARBONSCHED_EVENT=failed" in env
    assert "CARBONSCHED_JOB=tiny-7f3a1c" in env
    assert "s3cret" not in env
    assert [(tmp_path / name).read_text().strip() for name in ("argc", "cwd")] == ["0", "/"]


@pytest.mark.parametrize("kind", ["writable by all", "another's", "folder writable by all"])
def test_command_that_others_could_have_written_is_not_run(tmp_path: Path, kind: str) -> None:
    path = Path(program(tmp_path, f"touch {tmp_path}/ran"))
    if kind == "writable by all":
        path.chmod(0o757)
    elif kind == "another's":
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        os.chown(path, 12345, 12345)
    else:
        tmp_path.chmod(0o777)
    with pytest.raises(DeliveryError, match="can be written by others") as refused:
        target_of(NotifyConfig(command=str(path))).deliver(told())
    assert not refused.value.again
    assert not (tmp_path / "ran").exists()


def test_command_that_fails_hangs_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeliveryError, match="exit code 3"):
        target_of(NotifyConfig(command=program(tmp_path, "exit 3"))).deliver(told())
    with pytest.raises(DeliveryError, match="cannot be run: No such file"):
        target_of(NotifyConfig(command=str(tmp_path / "gone"))).deliver(told())
    monkeypatch.setattr(targets, "COMMAND_S", 0.2)
    hangs = program(tmp_path, f"sleep 300 & echo $! > {tmp_path}/pid; wait")
    with pytest.raises(DeliveryError, match="did not end within"):
        target_of(NotifyConfig(command=hangs)).deliver(told())
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}/stat").exists() and " Z " not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline, "what it started runs on"
        time.sleep(0.02)


def test_mail_has_plain_headers_and_one_recipient(tmp_path: Path) -> None:
    sendmail = program(tmp_path, f'echo "$@" > {tmp_path}/argv; cat > {tmp_path}/mail')
    target_of(NotifyConfig(mail="owner", sendmail=sendmail)).deliver(told())
    assert (tmp_path / "argv").read_text() == "-i -- root\n"
    mail = (tmp_path / "mail").read_text()
    head, _, body = mail.partition("\n\n")
    assert "\nBcc:" not in f"\n{head}"
    assert "Subject: carbonsched: tiny-7f3a1c failed:" in head
    assert "event  failed" in body
    with pytest.raises(DeliveryError, match="no mailbox") as refused:
        target_of(NotifyConfig(mail="owner", sendmail=sendmail)).deliver(told(owner="54321"))
    assert not refused.value.again


@pytest.mark.parametrize("address", ["-oQ/tmp", "a@b c", "a\nb", "a;b", ""])
def test_address_that_sendmail_might_take_for_something_else(address: str) -> None:
    with pytest.raises(InputError, match="mail"):
        NotifyConfig.parse({"mail": address})


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({}, "command: is missing"), ({"mail": "a", "webhook": "http://x/"}, "webhook and mail are set"),
     ({"mail": "a", "token_file": "/t"}, "token_file: is sent to a webhook alone"), ({"mail": "a", "on": ["born"]}, "on")],
)  # fmt: skip
def test_settings_that_contradict_themselves(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        NotifyConfig.parse(wrong)


def webhook(server: Server, **more: object) -> NotifyConfig:
    return NotifyConfig.parse({"webhook": f"{server.url}/hook", **more})


def test_webhook_is_posted_the_document_and_the_token(tmp_path: Path) -> None:
    token, address = tmp_path / "token", tmp_path / "address"
    token.write_text("s3cret\n")
    token.chmod(0o600)
    with serve(lambda _: Reply(b"ok")) as server:
        target_of(webhook(server, token_file=str(token))).deliver(told())
        address.write_text(f"{server.url}/T0/B0/key\n")
        address.chmod(0o600)
        target_of(NotifyConfig(webhook_file=str(address))).deliver(told())
    assert server.paths == ["/hook", "/T0/B0/key"]
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    sent = json.loads(server.sent[0])
    assert sent.pop("text").startswith("tiny-7f3a1c failed: ")
    assert Notification.parse(sent) == told()


@pytest.mark.parametrize(
    ("reply", "again"),
    [(Reply(status=503), True), (Reply(status=429), True), (Reply(status=404), False), (Reply(delay_s=0.5), True),
     (Reply(status=302, headers={"Location": "/elsewhere"}), False)],
    ids=["busy", "too many", "gone", "silent", "elsewhere"],
)  # fmt: skip
def test_webhook_that_refuses(reply: Reply, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "WEBHOOK_S", 0.2)
    with serve(lambda _: reply) as server, pytest.raises(DeliveryError) as refused:
        target_of(webhook(server)).deliver(told())
    assert refused.value.again is again
    assert server.paths == ["/hook"]


def test_address_that_is_a_secret_is_in_no_message(tmp_path: Path) -> None:
    address = tmp_path / "address"
    address.write_text("http://127.0.0.1:9/T0/B0/s3cret\n")
    address.chmod(0o644 if os.geteuid() else 0o604)
    target = target_of(NotifyConfig(webhook_file=str(address)))
    with pytest.raises(DeliveryError, match="open to others"):
        target.deliver(told())
    address.chmod(0o600)
    with pytest.raises(DeliveryError, match="no answer") as refused:
        target.deliver(told())
    assert "s3cret" not in f"{refused.value!r} {target.name}"
    assert refused.value.__suppress_context__

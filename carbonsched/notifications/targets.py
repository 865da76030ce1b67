"""The ways to deliver a notification. Each takes a bounded time, and raises DeliveryError where it did not get through."""

import os
import pwd
import signal
import stat
import subprocess
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Protocol

from carbonsched.errors import FeedError
from carbonsched.feeds.secrets import Secret
from carbonsched.model.notification import Notification
from carbonsched.notifications.settings import OWNER, NotifyConfig

COMMAND_S: Final = 30.0
WEBHOOK_S: Final = 10.0
_AGAIN: Final = frozenset({408, 425, 429})
"""Refusals that say: later."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DeliveryError(Exception):
    """It did not get through. A message holds no address that is a secret.

    Example:
        >>> DeliveryError("the webhook answered 404", again=False).again
        False
    """

    def __init__(self, problem: str, *, again: bool = True) -> None:
        super().__init__(problem)
        self.again = again


class Target(Protocol):
    """One way to tell somebody.

    Example::

        target_of(settings).deliver(notification)
    """

    @property
    def name(self) -> str: ...

    def deliver(self, told: Notification) -> None: ...


@dataclass(frozen=True, slots=True)
class Command:
    """A program of the administrator's: the JSON on its stdin, the event and the job in its environment.

    It has the daemon's user and rights, so a file that anybody else could have written is not run. What users wrote (a job's
    name, a reason) is never an argument and meets no shell.

    Example::

        Command(Path("/usr/local/lib/carbonsched/on-job")).deliver(notification)
    """

    path: Path

    @property
    def name(self) -> str:
        return f"command {self.path}"

    def deliver(self, told: Notification) -> None:
        _refuse_foreign(self.path)
        env = {
            "PATH": _PATH,
            "LANG": "C.UTF-8",
            "CARBONSCHED_EVENT": told.event.value,
            "CARBONSCHED_JOB": told.job,
        }
        _run([str(self.path)], f"{told.model_dump_json()}\n".encode(), env)


@dataclass(frozen=True, slots=True)
class Webhook:
    """An HTTP address that the JSON is posted to. Redirects are not followed: a token would go with them.

    Example::

        Webhook(url="https://ops.example.org/hook").deliver(notification)
    """

    url: str | None = None
    secret_url: Secret | None = None
    token: Secret | None = None

    @property
    def name(self) -> str:
        if self.url is None:
            return f"the webhook of {self.secret_url.path if self.secret_url else ''}"
        return f"webhook {self.url.split('?')[0]}"

    def deliver(self, told: Notification) -> None:
        headers = {"Content-Type": "application/json", "User-Agent": "carbonsched"}
        try:
            url = self.url if self.secret_url is None else self.secret_url.read()
            if self.token is not None:
                headers["Authorization"] = f"Bearer {self.token.read()}"
        except FeedError as e:
            raise DeliveryError(str(e)) from e
        import requests  # a daemon that tells no webhook need not load it

        # `text` is what chats show
        body = told.dump() | {"text": told.line}
        try:
            with requests.Session() as session:
                session.trust_env = False
                sent = session.post(
                    url or "",
                    json=body,
                    headers=headers,
                    timeout=WEBHOOK_S,
                    allow_redirects=False,
                    stream=True,
                )
                with sent:  # what it says is not read
                    status = sent.status_code
        except requests.RequestException as e:  # its text holds the address
            raise DeliveryError(f"no answer ({type(e).__name__})") from None
        if not 200 <= status < 300:
            raise DeliveryError(f"it answered {status}", again=status >= 500 or status in _AGAIN)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail through the box's own sendmail.

    Example::

        Mail("ops@example.org", Path("/usr/sbin/sendmail")).deliver(notification)
    """

    to: str
    sendmail: Path

    @property
    def name(self) -> str:
        return f"mail to {self.to}"

    def deliver(self, told: Notification) -> None:
        to = told.owner if self.to == OWNER else self.to
        if self.to == OWNER:
            try:
                pwd.getpwnam(to)
            except KeyError as e:
                raise DeliveryError(f"{to} has no mailbox here", again=False) from e
        message = EmailMessage()
        message["To"], message["Subject"] = to, f"carbonsched: {_plain(told.line)}"[:200]
        message["Auto-Submitted"] = "auto-generated"
        rows = {
            "job": told.job,
            "owner": told.owner,
            "event": told.event.value,
            "why": told.reason,
            "at": told.dump()["at"],
        }
        lines = [f"{key:7}{_plain(str(value))}" for key, value in rows.items()]
        message.set_content("\n".join([*lines, "", f"carbonsched show {told.job}", ""]))
        _run([str(self.sendmail), "-i", "--", to], message.as_bytes(), {"PATH": _PATH, "LANG": "C.UTF-8"})


def target_of(settings: NotifyConfig) -> Target:
    """What one of `[[notify]]` names."""
    if settings.command is not None:
        return Command(Path(settings.command))
    if settings.mail is not None:
        return Mail(settings.mail, Path(settings.sendmail))
    return Webhook(
        settings.webhook,
        _secret("notify.webhook_file", settings.webhook_file),
        _secret("notify.token_file", settings.token_file),
    )


def _secret(field: str, path: str | None) -> Secret | None:
    return None if path is None else Secret(field, path=Path(path))


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _refuse_foreign(path: Path) -> None:
    """A program that others could have written is theirs to choose, and our rights are not."""
    try:
        for part in (path, path.parent):
            status = part.stat()
            ours = status.st_uid in (0, os.geteuid())
            sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
            if not ours or (status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky):
                raise DeliveryError(f"{part} can be written by others: chown root, chmod go-w", again=False)
    except OSError as e:
        raise DeliveryError(f"{path} cannot be run: {e.strerror}") from e


def _run(argv: list[str], stdin: bytes, env: dict[str, str]) -> None:
    """In a session of its own, so that what it starts ends with it."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            cwd="/",
            start_new_session=True,
        )
    except OSError as e:
        raise DeliveryError(f"{argv[0]} cannot be run: {e.strerror}") from e
    try:
        process.communicate(stdin, timeout=COMMAND_S)
    except subprocess.TimeoutExpired as e:
        raise DeliveryError(f"it did not end within {COMMAND_S:g} s") from e
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise DeliveryError(f"it ended with exit code {process.returncode}")

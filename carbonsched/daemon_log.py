"""How the daemon writes its log to stderr: for people with the time, for the journal with priorities, or as JSON lines.

One line a record, whatever other people's text is in it, and no secret: what looks like one is blotted out in all three.
"""

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

from carbonsched.text import one_line

LogForm = Literal["auto", "text", "journal", "json"]

_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""As syslog counts; what is less than INFO is 7."""
_NAMES = r"api[_-]?key|auth[_-]?token|access[_-]?token|client[_-]?secret|x-api-key|securitytoken|passw(?:or)?d|secret|token|key"
_SECRETS: Final = (
    # what an address names before its host; a password may hold a slash or another @
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s'\"<>]*@", re.IGNORECASE), r"\1…@"),
    (re.compile(r"(\b(?i:authorization)\b\W{1,4}(?:[A-Za-z]+\s+)?)[A-Za-z0-9._~+/=-]{4,}"), r"\1…"),
    (re.compile(r"\b((?i:bearer|basic))\s+(?=\S*[A-Z0-9=])[A-Za-z0-9._~+/=-]{8,}"), r"\1 …"),
    (re.compile(rf"(?<![\w.-])({_NAMES})(\s*=\s*)(?:'[^']*'|\"[^\"]*\"|[^\s&,;'\"]+)", re.IGNORECASE), r"\1\2…"),
    (re.compile(rf"(['\"])({_NAMES})\1(\s*:\s*)(['\"])(?:\\.|(?!\4).)*\4", re.IGNORECASE), r"\1\2\1\3\4…\4"),
    (re.compile(r"\b(auth-token|x-api-key)(:\s+)[^\s,;]+", re.IGNORECASE), r"\1\2…"),
    # tokens that tell what they are: of the hub, of code forges, of cloud accounts, of chat hooks
    (re.compile(r"\b(hf_|gh[pousr]_|github_pat_|glpat-|sk-|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}"), r"\1…"),
    (re.compile(r"(https://hooks\.[\w.]+/|https://[\w.]*discord\w*\.com/api/webhooks/)[^\s'\"]+"), r"\1…"),
)  # fmt: skip
_JOB = re.compile(r"job ([\w.-]+)")


def without_secrets(text: str) -> str:
    """`text`, what looks like a password, a key or a token in it blotted out.

    >>> without_secrets("GET https://ada:pw@grid.test/v1?token=abc&zone=DE failed")
    'GET https://…@grid.test/v1?token=…&zone=DE failed'
    """
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class LineFormatter(logging.Formatter):
    """One line a record, and of an exception lines that are told from ours: nothing of theirs can pass for a line of ours.

    Example:
        >>> record = logging.LogRecord("job", logging.INFO, "", 0, "it says %s", ("a\\nERROR b",), None)
        >>> LineFormatter("%(levelname)s %(name)s: %(message)s").format(record)
        'INFO job: it says a ERROR b'
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = _message_of(record)
        return super().formatMessage(record)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _at(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(f"  | {line}" for line in _lines(super().formatException(ei)))


class JournalFormatter(LineFormatter):
    """As `sd-daemon(3)` has it: each line begins with its priority, and the journal knows the time itself.

    Example:
        >>> record = logging.LogRecord("job", logging.WARNING, "", 0, "late", (), None)
        >>> JournalFormatter().format(record)
        '<4>job: late'
    """

    def __init__(self) -> None:
        super().__init__("%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object a record: at, level, logger, message, the job that it is about, and an exception's lines.

    Example:
        >>> record = logging.LogRecord("tick", logging.INFO, "", 0, "job tiny-1: done", (), None)
        >>> json.loads(JsonFormatter().format(record))["job"]
        'tiny-1'
    """

    def __init__(self, *, priority: bool = False) -> None:
        """priority: with the journal's prefix."""
        super().__init__()
        self._priority = priority

    def format(self, record: logging.LogRecord) -> str:
        message = _message_of(record)
        said: dict[str, Any] = {
            "at": _at(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message,
        }
        if (job := _JOB.match(message)) is not None:
            said["job"] = job[1]
        if record.exc_info:
            said["exception"] = _lines(self.formatException(record.exc_info))
        prefix = f"<{_priority(record.levelno)}>" if self._priority else ""
        return prefix + json.dumps(said, ensure_ascii=False)


def set_up(form: LogForm, stream: TextIO = sys.stderr) -> None:
    """Send all records to `stream`. auto: for the journal where it is the journal's, else for people."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(form, journal=is_journal(stream)))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("alembic", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # it warns of every retry; the chain tells once that a feed fails, and why
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def formatter(form: LogForm, *, journal: bool) -> logging.Formatter:
    """What writes a record in this form. journal: whether it is the journal that reads it."""
    if form == "json":
        return JsonFormatter(priority=journal)
    if form == "journal" or (form == "auto" and journal):
        return JournalFormatter()
    return LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


def is_journal(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Whether systemd has connected `stream` with the journal ($JOURNAL_STREAM, systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _message_of(record: logging.LogRecord) -> str:
    return without_secrets(one_line(record.getMessage()))


def _lines(text: str) -> list[str]:
    return [without_secrets(one_line(line)) for line in text.split("\n")]


def _at(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)

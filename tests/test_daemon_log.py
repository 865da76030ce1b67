"""The daemon's log: a priority, a time or an object for each line, and no secret in any form."""

import io
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable

import pytest

from carbonsched.daemon_log import LogForm, formatter, is_journal

KINDS = {
    "password in an address": "GET https://ada:SECRET1x@grid.test/v1 failed",
    "password with a slash and an at": "sqlalchemy postgresql+psycopg://carbon:SECRET1x/p@w@db/ledger is away",
    "key in a query": "https://api.eia.gov/v2/?api_key=SECRET1x&length=5",
    "token in a query": "/api?securityToken=SECRET1x: 401",
    "bearer": "sent Authorization: Bearer SECRET1x",
    "bearer alone": "it says bearer SECRET1x",
    "basic": "{'Authorization': 'Basic SECRET1x='}",
    "own header": "auth-token: SECRET1x",
    "a dict of headers": "{'auth-token': 'SECRET1x', 'accept': '*/*'}",
    "JSON": '{"access_token": "SECRET1x", "zone": "DE"}',
    "keyword": "login(user='ada', password='SECRET1x')",
    "token of the hub": "hub refused hf_SECRET1xSECRET1x",
    "chat hook": "POST https://hooks.slack.com/services/T0/B0/SECRET1x failed",
}
FORMS: tuple[LogForm, ...] = ("text", "journal", "json")


def logged(form: LogForm, work: Callable[[logging.Logger], None], *, journal: bool = False) -> list[str]:
    logger, stream = logging.Logger("carbonsched.part"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(form, journal=journal))
    logger.addHandler(handler)
    work(logger)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_no_secret_of_any_kind(form: LogForm, kind: str) -> None:
    def work(log: logging.Logger) -> None:
        log.warning("feed: %s", KINDS[kind])
        try:
            float(KINDS[kind])
        except ValueError as e:
            e.add_note(KINDS[kind])
            log.exception("failed")

    lines = logged(form, work)
    assert len(lines) >= 2
    assert "SECRET" not in "\n".join(lines)


@pytest.mark.parametrize(
    "line",
    [
        "api.token_file: /etc/t cannot be read: No such file",
        "feeds[0].token: is missing; set one of token_env, token_file and token_credential",
        "job a-1 segment 2: rho 0.600 at 200 g/kWh, the budget binds",
        "it takes a basic understanding of tokens",
        "https://api.neso.energy/v1/intensity answered 503",
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert logged("text", lambda log: log.info(line))[0].endswith(line)


def test_journal_is_told_how_bad_it_is_line_by_line() -> None:
    def work(log: logging.Logger) -> None:
        log.debug("d")
        log.info("i")
        log.warning("two\n<2>lines")
        try:
            int("disk")
        except ValueError:
            log.exception("e")
        log.critical("c")

    lines = logged("auto", work, journal=True)
    assert lines[:3] == [
        "<7>carbonsched.part: d",
        "<6>carbonsched.part: i",
        "<4>carbonsched.part: two <2>lines",
    ]
    assert all(line.startswith("<3>") for line in lines[3:-1])
    assert len(lines) > 5
    assert lines[-1] == "<2>carbonsched.part: c"
    assert logged("json", lambda log: log.warning("x"), journal=True)[0].startswith('<4>{"at"')


def test_text_has_the_time_and_json_the_job() -> None:
    [line] = logged("auto", lambda log: log.info("served"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO carbonsched.part: served", line)
    [line] = logged("json", lambda log: log.warning("job tiny-1f: running -> failed: killed"))
    said = json.loads(line)
    assert (said["level"], said["job"], said["logger"]) == ("warning", "tiny-1f", "carbonsched.part")


def test_the_journal_is_known_by_what_stderr_is() -> None:
    with tempfile.TemporaryFile("w") as file:
        status = os.fstat(file.fileno())
        assert is_journal(file, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not is_journal(file, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not is_journal(file, {})
    assert not is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:1"})
    assert not is_journal(sys.stderr, {})

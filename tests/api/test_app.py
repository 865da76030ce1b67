"""The routes over a real socket: documents, errors as one ErrorBody, bounded logs."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from support.box import SPEC, Box, serving

from carbonsched.api.app import BODY_BYTES, IMPORT_BYTES, create_app
from carbonsched.api.logs import CHUNK_BYTES
from carbonsched.errors import DeniedError, LedgerError
from carbonsched.model.audit import AuditResult
from carbonsched.model.grid import GridView
from carbonsched.model.job import Owner
from carbonsched.model.job_state import JobState
from carbonsched.model.views import (
    Acted,
    Budgeted,
    ErrorBody,
    Explained,
    JobDetail,
    JobList,
    Submitted,
    Version,
)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.fixture
def http(box: Box, tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        serving(box, tmp_path / "api.sock") as path,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://carbonsched") as client,
    ):
        yield client


def problem(answer: httpx.Response) -> ErrorBody:
    return ErrorBody.parse(answer.json())


def test_submit_then_show_cancel(http: httpx.Client, box: Box) -> None:
    answer = http.post("/v1/jobs", json={"spec": SPEC})
    assert answer.status_code == 201
    submitted = Submitted.parse(answer.json())
    assert box.entries[submitted.id].owner.uid == os.getuid()
    assert box.entries[submitted.id].owner.pid == os.getpid()
    assert [job.id for job in JobList.parse(http.get("/v1/jobs").json()).jobs] == [submitted.id]
    assert JobDetail.parse(http.get(f"/v1/jobs/{submitted.id}").json()).spec.carbon.budget_g == 120.0
    acted = Acted.parse(http.post(f"/v1/jobs/{submitted.id}/cancel").json())
    assert acted.state is JobState.CANCELLED


def test_explain_needs_the_check_and_budget_its_grams(http: httpx.Client, box: Box) -> None:
    missing = http.post("/v1/explain", json={"spec": SPEC})
    assert (missing.status_code, problem(missing).exit_code) == (400, 2)
    assert problem(missing).error.startswith("checked: is missing")
    checked = {
        "ok": True, "model": "m", "params": 1, "rows": 8, "validation_rows": 2, "steps": 20, "segments": 2,
        "rho_floor": 0.4, "step_flops_full": 1e12, "batch": 4, "seq": 64,
    }  # fmt: skip
    told = Explained.parse(http.post("/v1/explain", json={"spec": SPEC, "checked": checked}).json())
    assert len(told.segments) == 2
    assert box.entries == {}
    entry = box.add()
    set_to = Budgeted.parse(http.post(f"/v1/jobs/{entry.id}/budget", json={"grams": 7.5}).json())
    assert (set_to.from_g, set_to.budget_g) == (120.0, 7.5)
    for wrong in ({}, {"grams": 0}, {"grams": "many"}, {"gram": 3}):
        answer = http.post(f"/v1/jobs/{entry.id}/budget", json=wrong)
        assert (answer.status_code, problem(answer).exit_code) == (400, 2)


def test_spec_that_is_wrong_names_the_key(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", json={"spec": SPEC | {"carbon": {"budget_gram": 3}}})
    assert answer.status_code == 400
    assert problem(answer).error == "spec.carbon.budget_gram: unknown key; did you mean 'budget_g'?"
    assert problem(answer).exit_code == 2


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"{}"])
def test_body_that_is_no_submission(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert problem(answer).exit_code == 2


@pytest.mark.parametrize(
    ("epochs", "says"),
    [
        ("3", "spec.train.epochs: must be a number, is '3'; write it without quotes"),
        (True, "spec.train.epochs: must be a number, is true; write a number"),
        (3.5, "spec.train.epochs: must be a whole number, is 3.5"),
        (3.0, None),
    ],
)
def test_types_are_taken_by_their_word_and_3_0_is_a_whole_number_of_json(
    http: httpx.Client, epochs: object, says: str | None
) -> None:
    answer = http.post("/v1/jobs", json={"spec": SPEC | {"train": {"epochs": epochs}}})
    assert answer.status_code == (201 if says is None else 400)
    if says is not None:
        assert answer.json()["error"].startswith(says)


def test_grams_in_quotes_are_no_number(http: httpx.Client, box: Box) -> None:
    answer = http.post(f"/v1/jobs/{box.add().id}/budget", json={"grams": "5"})
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "grams: must be a number, is '5'; write it without quotes",
    )


def test_body_without_end_is_refused(http: httpx.Client, box: Box) -> None:
    answer = http.post("/v1/jobs", content=b" " * (BODY_BYTES + 1))
    assert answer.status_code == 413
    assert "larger than" in problem(answer).error
    assert box.entries == {}


def test_unknown_job_unknown_route_wrong_method(http: httpx.Client) -> None:
    missing = http.get("/v1/jobs/nope")
    assert (missing.status_code, problem(missing).exit_code) == (404, 2)
    assert "there is no job nope" in problem(missing).error
    assert problem(http.get("/v2/jobs")).exit_code == 2
    assert http.get("/v1/jobs/nope/cancel").status_code == 405


def test_move_the_table_forbids_is_a_conflict(http: httpx.Client, box: Box) -> None:
    entry = box.add()
    http.post(f"/v1/jobs/{entry.id}/cancel")
    answer = http.post(f"/v1/jobs/{entry.id}/resume")
    assert answer.status_code == 409
    assert problem(answer).exit_code == 1


def test_failure_nobody_foresaw_is_one_line_without_its_inside(http: httpx.Client, box: Box) -> None:
    box.broken = RuntimeError("secret of the house")
    answer = http.get("/v1/jobs")
    assert answer.status_code == 500
    assert "RuntimeError" in problem(answer).error
    assert "secret" not in answer.text


def test_connection_without_credentials_may_not_act(box: Box) -> None:
    from starlette.testclient import TestClient

    entry = box.add()
    with TestClient(create_app(box)) as anonymous:
        answer = anonymous.post(f"/v1/jobs/{entry.id}/cancel")
    assert answer.status_code == 403
    assert entry.state is JobState.QUEUED


def test_log_in_pieces(http: httpx.Client, box: Box, tmp_path: Path) -> None:
    entry = box.add()
    url = f"/v1/jobs/{entry.id}/log"
    nothing = http.get(url)
    assert (nothing.content, nothing.headers["X-Next-Offset"]) == (b"", "0")
    whole = bytes(range(256)) * (CHUNK_BYTES // 256) + b"the end\n"
    box.log_file(entry).write_bytes(whole)
    first = http.get(url)
    assert len(first.content) == CHUNK_BYTES
    rest = http.get(url, params={"offset": first.headers["X-Next-Offset"]})
    assert first.content + rest.content == whole
    assert rest.headers["X-Next-Offset"] == rest.headers["X-Size"] == str(len(whole))
    assert http.get(url, params={"offset": -4}).content == b"end\n"
    assert http.get(url, params={"offset": len(whole) + 1}).status_code == 400
    assert http.get(url, params={"offset": "x"}).status_code == 400


def test_link_in_the_logs_place_is_not_followed(http: httpx.Client, box: Box, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the daemon")
    entry = box.add()
    box.log_file(entry).symlink_to(secret)
    answer = http.get(f"/v1/jobs/{entry.id}/log")
    assert answer.status_code == 409
    assert "of the daemon" not in answer.text


def test_pipe_in_the_logs_place_does_not_hang(http: httpx.Client, box: Box) -> None:
    entry = box.add()
    os.mkfifo(box.log_file(entry))
    assert http.get(f"/v1/jobs/{entry.id}/log").status_code == 409


def test_grid_audit_version(http: httpx.Client) -> None:
    view = GridView.parse(http.get("/v1/grid", params={"forecast_h": 3}).json())
    assert len(view.forecast) == 3
    assert view.now.g_per_kwh == 200.0
    assert http.get("/v1/grid", params={"forecast_h": -1}).status_code == 400
    assert AuditResult.parse(http.get("/v1/audit").json()).rows == 7
    assert Version.parse(http.get("/v1/version").json()).pid == 1


def test_report_says_what_is_missing(http: httpx.Client, box: Box) -> None:
    entry = box.add()
    answer = http.get("/v1/report", params={"job": entry.id, "format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    span = {"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T01:00:00+01:00"}
    assert http.get("/v1/report", params=span).json()["end"] == "2026-11-02T00:00:00.000Z"
    assert (
        http.get("/v1/report", params={"start": "2026-11-01"}).json()["start"] == "2026-11-01T00:00:00.000Z"
    )
    for wrong in (
        {},
        {"end": span["end"]},
        {"start": "2026-11-31"},
        span | {"end": "soon"},
        span | {"end": "2026-11-02T00:00:00"},
        span | {"start": "0001-01-01T00:00:00+14:00"},
        span | {"end": "9999-12-31T23:59:59-12:00"},
    ):
        assert problem(http.get("/v1/report", params=wrong)).exit_code == 2
    assert http.get("/v1/report", params={"job": entry.id, "format": "docx"}).status_code == 400


def test_report_is_made_as_fast_as_it_is_read(http: httpx.Client, box: Box) -> None:
    """However long it is, the daemon holds a few pieces of it."""
    made: list[int] = []

    def long() -> Iterator[str]:
        for n in range(64):
            made.append(n)
            yield "x" * 2**20

    box.report = long
    asked = {"start": "2026-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z", "format": "csv"}
    with http.stream("GET", "/v1/report", params=asked) as answer:
        assert answer.status_code == 200
        chunks = answer.iter_raw()
        size = len(next(chunks))
        time.sleep(0.3)
        assert len(made) < 8
        size += sum(len(chunk) for chunk in chunks)
    assert (size, len(made)) == (64 * 2**20, 64)


def test_report_that_fails_at_once_says_why(http: httpx.Client, box: Box) -> None:
    def broken() -> Iterator[str]:
        raise LedgerError("ledger.db: disk I/O error")
        yield ""

    box.report = broken
    answer = http.get("/v1/report", params={"job": box.add().id, "format": "csv"})
    assert (answer.status_code, problem(answer).error) == (500, "ledger.db: disk I/O error")


def test_half_a_character_in_a_path_is_named(http: httpx.Client) -> None:
    body = '{"spec": {"name": "a", "model": {"name_or_path": "m\\ud83d"}, "data": {"name_or_path": "d"}, "carbon": {}}}'
    for url in ("/v1/jobs", "/v1/explain"):
        answer = http.post(url, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert "spec.model.name_or_path: holds a lone surrogate" in problem(answer).error


@pytest.mark.parametrize("slow", ["audit", "submit"])
def test_what_takes_long_leaves_threads_for_what_does_not(
    http: httpx.Client, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """An operator cancels and drains while somebody has the ledger verified ten times, or a job's files hang."""
    go = threading.Event()

    def waits(*_: object) -> AuditResult | Submitted:
        assert go.wait(60)
        return Submitted(id="a-1", state=JobState.QUEUED) if slow == "submit" else box.audit_result

    monkeypatch.setattr(box, slow, waits)

    def ask() -> int:
        transport = httpx.HTTPTransport(uds=str(tmp_path / "api.sock"))
        with httpx.Client(transport=transport, base_url="http://carbonsched", timeout=60) as client:
            if slow == "audit":
                return client.get("/v1/audit").status_code
            return client.post("/v1/jobs", json={"spec": SPEC}).status_code

    with ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(ask) for _ in range(12)]
        try:
            time.sleep(0.5)
            for path in ("/v1/jobs", "/v1/version", "/v1/drain"):
                assert http.get(path, timeout=20).status_code == 200
        finally:
            go.set()
        assert {one.result() for one in asked} == {201 if slow == "submit" else 200}


def test_a_long_body_is_read_only_of_who_may_import(
    http: httpx.Client, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 MiB for an import, but not from somebody who is then told that he may not."""

    def deny(operation: str, actor: Owner) -> None:
        raise DeniedError(f"only an admin may {operation}")

    monkeypatch.setattr(box, "allow", deny)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(tmp_path / "api.sock"))
        head = "POST /v1/imports HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"
        sock.sendall(head.format(IMPORT_BYTES).encode() + b" " * (BODY_BYTES + 1))
        assert b" 403 " in sock.recv(4096).partition(b"\r\n")[0]
    monkeypatch.undo()
    monkeypatch.setattr(box, "import_log", None, raising=False)
    padded = b'{"nothing": 1}' + b" " * (BODY_BYTES + 1)
    answer = http.post("/v1/imports", content=padded, headers={"Content-Type": "application/json"})
    assert (answer.status_code, problem(answer).exit_code) == (400, 2), "an admin's is read, and found wrong"

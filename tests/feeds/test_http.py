import gzip
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from support.http_server import Reply, Server, serve

from carbonsched.errors import FeedError
from carbonsched.feeds.http import HttpTransport, redact
from carbonsched.feeds.transport import RetryLaterError

SECRET = "s3cr3t-token"  # noqa: S105


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(lambda path: Reply(b'{"ok": 1}')) as running:
        yield running


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    made = HttpTransport(max_bytes=50_000, backoff_s=0.01)
    yield made
    made.close()


def refused(server: Server, transport: HttpTransport, timeout_s: float = 2.0) -> FeedError:
    with pytest.raises(FeedError) as caught:
        transport.get(f"{server.url}/v1/x?key={SECRET}", timeout_s=timeout_s, headers={"auth-token": SECRET})
    message = str(caught.value)
    assert SECRET not in message
    assert "\n" not in message
    assert len(message) < 300
    return caught.value


def test_answers_parsed_json_and_the_hash_of_the_raw_body(server: Server, transport: HttpTransport) -> None:
    raw = b' {"data": [1, 2.5]}\n'
    server.answer = lambda path: Reply(raw)
    body = transport.get(f"{server.url}/a", timeout_s=2, headers={"auth-token": "t"})
    assert body.json == {"data": [1, 2.5]}
    assert body.sha256 == hashlib.sha256(raw).hexdigest()
    assert server.headers[0]["User-Agent"].startswith("carbonsched/")
    assert server.headers[0]["auth-token"] == "t"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"data": [',
        b'{"data": NaN}',
        b"<html>maintenance</html>",
        b"",
        b"\xff\xfe",
        b"[" * 20_000,
        b'{"a": 1, "a": 2}',
    ],
)
def test_what_is_not_json_is_refused(server: Server, transport: HttpTransport, raw: bytes) -> None:
    server.answer = lambda path: Reply(raw)
    assert "the answer is not JSON" in str(refused(server, transport))


def test_a_server_that_fails_is_asked_three_times(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(b'{"error":{"message":"down"}}', 500)
    assert "HTTP 500" in str(refused(server, transport))
    assert len(server.paths) == 3


def test_a_server_is_asked_no_more_often_than_is_said(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(b"{}", 500)
    with pytest.raises(FeedError, match="HTTP 500"):
        transport.get(f"{server.url}/a", timeout_s=2, tries=1)
    assert len(server.paths) == 1


def test_one_failure_is_got_over(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(b"", 503) if len(server.paths) == 1 else Reply(b"[7]")
    assert transport.get(f"{server.url}/a", timeout_s=2).json == [7]


def test_a_short_retry_after_is_waited_for_and_a_long_one_handed_on(
    server: Server, transport: HttpTransport
) -> None:
    server.answer = lambda path: (
        Reply(b"", 429, {"Retry-After": "1"}) if len(server.paths) == 1 else Reply(b"[7]")
    )
    before = time.monotonic()
    assert transport.get(f"{server.url}/a", timeout_s=2).json == [7]
    assert time.monotonic() - before >= 1
    server.paths.clear()
    server.answer = lambda path: Reply(b"slow down", 429, {"Retry-After": "600"})
    error = refused(server, transport)
    assert isinstance(error, RetryLaterError)
    assert error.after_s == 600
    assert len(server.paths) == 1


def test_a_garbled_retry_after_is_no_crash(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(b"", 429, {"Retry-After": "soon"})
    refused(server, transport)


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
def test_other_answers_are_refused_at_once_in_the_servers_words(
    server: Server, transport: HttpTransport, status: int
) -> None:
    server.answer = lambda path: Reply(
        b'{"error": "not for\n you"}', status, {"Location": f"/login?key={SECRET}"}
    )
    message = str(refused(server, transport))
    assert f"HTTP {status}" in message
    assert "not for you" in message
    assert len(server.paths) == 1


def test_a_page_of_html_is_not_quoted(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(b"<!doctype html><p>forbidden", 403, type="text/html; charset=utf-8")
    assert "HTTP 403, a page of HTML" in str(refused(server, transport))


def test_a_slow_server_is_given_up(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(delay_s=0.6)
    assert "no answer within 0.1 s" in str(refused(server, transport, timeout_s=0.1))


def test_a_server_that_drips_is_given_up(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(b"1" * 40, drip_s=0.05)
    before = time.monotonic()
    assert "not complete after 0.6 s" in str(refused(server, transport, timeout_s=0.2))
    assert time.monotonic() - before < 1.5


def test_a_body_that_is_too_large_is_not_read_to_its_end(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(b"1" * 2_000_000)
    assert "larger than 50000 bytes" in str(refused(server, transport))


def test_a_small_body_that_unpacks_to_a_large_one_is_refused(
    server: Server, transport: HttpTransport
) -> None:
    packed = gzip.compress(b"1" * 5_000_000)
    assert len(packed) < 50_000
    server.answer = lambda path: Reply(packed, headers={"Content-Encoding": "gzip"})
    assert "larger than 50000 bytes" in str(refused(server, transport))


def test_a_connection_that_breaks_off_is_told(server: Server, transport: HttpTransport) -> None:
    server.answer = lambda path: Reply(b"[1]", declare=400)
    assert "v1/x: " in str(refused(server, transport, timeout_s=0.3))


def test_nobody_listening_is_told_in_the_systems_words(transport: HttpTransport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(FeedError, match="no connection: Connection refused"):
        transport.get(f"http://user:{SECRET}@127.0.0.1:{port}/x?token={SECRET}", timeout_s=1)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"GET https://me:{SECRET}@host/a?api_key={SECRET}&b=1 failed (url '/b?token={SECRET}')",
         "GET https://host/a failed (url '/b')"),
        (f"http://u:p@{SECRET}@127.0.0.1:1/x: HTTP 404", "http://127.0.0.1:1/x: HTTP 404"),
        (f"HTTP://u:{SECRET}@host/x: no", "HTTP://host/x: no"),
        (f"'ftp://u:1/{SECRET}?x@host/x', 'https://host/x#{SECRET}'", "'ftp://host/x', 'https://host/x'"),
        ("http://[::1]:80/x: HTTP 404", "http://[::1]:80/x: HTTP 404"),
    ],
)  # fmt: skip
def test_redaction_drops_queries_fragments_and_passwords(text: str, shown: str) -> None:
    assert redact(text) == shown


@contextmanager
def listening(answer: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """A server below HTTP: its address, and an entry for each connection."""
    taken: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_all() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    taken.append(1)
                    with connection, suppress(OSError):
                        connection.recv(65_536)
                        answer(connection)

        thread = threading.Thread(target=serve_all)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/x", taken
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_headers_that_drip_are_given_up_in_time(transport: HttpTransport) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for i in range(100):
            connection.sendall(b"X-%d: 1\r\n" % i)
            time.sleep(0.05)

    with listening(drip) as (url, taken):
        before = time.monotonic()
        with pytest.raises(FeedError, match=r"no answer within 0\.3 s"):
            transport.get(url, timeout_s=0.3)
        assert time.monotonic() - before < 1.5
        assert len(taken) == 1


def test_who_hangs_is_asked_once(transport: HttpTransport) -> None:
    with listening(lambda connection: time.sleep(0.5)) as (url, taken):
        with pytest.raises(FeedError, match=r"no answer within 0\.1 s"):
            transport.get(url, timeout_s=0.1)
        assert len(taken) == 1


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 300 + b"\r\n"]
)
def test_what_is_no_http_is_not_called_no_connection(transport: HttpTransport, said: bytes) -> None:
    with (
        listening(lambda connection: connection.sendall(said)) as (url, _),
        pytest.raises(FeedError, match="speaks no HTTP, or more of it"),
    ):
        transport.get(url, timeout_s=1.0)

"""A real HTTP server on loopback that answers what a test tells it to."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    body: bytes = b"{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    type: str = "application/json"
    delay_s: float = 0.0
    drip_s: float = 0.0
    """Pause between single bytes."""
    declare: int | None = None
    """Content-Length that is claimed; None: the true one."""


@dataclass
class Server:
    url: str
    answer: Callable[[str], Reply]
    """From the path with its query; may be replaced while the server runs."""
    paths: list[str] = field(default_factory=list)
    """What was asked for, in order."""
    headers: list[dict[str, str]] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    """Bodies of the POST requests, in order."""


@contextmanager
def serve(answer: Callable[[str], Reply]) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.sent.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.do_GET()

        def do_GET(self) -> None:
            server.paths.append(self.path)
            server.headers.append(dict(self.headers.items()))
            reply = server.answer(self.path)
            time.sleep(reply.delay_s)
            try:
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.type)
                self.send_header(
                    "Content-Length", str(len(reply.body) if reply.declare is None else reply.declare)
                )
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if not reply.drip_s:
                    self.wfile.write(reply.body)
                    return
                for byte in reply.body:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(reply.drip_s)
            except OSError:
                self.close_connection = True  # the client gave up, as it should

        def log_message(self, *args: object) -> None:
            """Quiet."""

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = (
        False  # server_close then waits for the handlers, so that no socket outlives the test
    )
    server = Server(f"http://127.0.0.1:{httpd.server_address[1]}", answer)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()

"""Heads are signed by a real SSH key and stamped by a real authority on the loopback, and verified without either."""

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support.job_history import T0

from carbonsched.errors import CarbonschedError, InputError, LedgerError
from carbonsched.ledger.anchors import anchor, vouched
from carbonsched.ledger.heads import Head, read_heads

HEAD = Head("6f" * 32, "7a" * 32, 12, 3)
CONFIG = """
[req]
distinguished_name = name
[name]
[v3]
extendedKeyUsage = critical,timeStamping
[tsa]
default_tsa = here
[here]
serial = {folder}/serial
crypto_device = builtin
default_policy = 1.2.3.4.1
digests = sha256
signer_digest = sha256
ess_cert_id_alg = sha256
"""


def made(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


class Authority:
    """RFC 3161 by OpenSSL, in a thread."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder, self.pem = folder, folder / f"{name}.pem"
        self.answer: bytes | None = None
        """Instead of a stamp."""
        (folder / "serial").write_text("01\n")
        (folder / "ts.cnf").write_text(CONFIG.format(folder=folder))
        made(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", f"{folder}/{name}.key", "-out", str(self.pem), "-subj", f"/CN={name}", "-days", "30"),
            *("-config", f"{folder}/ts.cnf", "-extensions", "v3"),
        )  # fmt: skip
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = self.rfile.read(int(self.headers["Content-Length"]))
                body = outer.answer if outer.answer is not None else outer.stamp(query, name)
                self.send_response(200)
                self.send_header("Content-Type", "application/timestamp-reply")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/tsr"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stamp(self, query: bytes, name: str) -> bytes:
        asked, said = self.folder / "asked.tsq", self.folder / "said.tsr"
        asked.write_bytes(query)
        made(
            *("openssl", "ts", "-reply", "-config", f"{self.folder}/ts.cnf", "-queryfile", str(asked)),
            *("-signer", str(self.pem), "-inkey", f"{self.folder}/{name}.key", "-out", str(said)),
        )
        return said.read_bytes()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    made_here = Authority(tmp_path_factory.mktemp("authority"))
    yield made_here
    made_here.close()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        made("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    return folder


def test_heads_are_signed_stamped_and_verified_offline(
    authority: Authority, keys: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "anchor"
    done = anchor(HEAD, folder, T0, key=keys / "mine", url=authority.url, ca=authority.pem)
    assert done.signed
    assert done.stamped_at is not None
    assert {path.name for path in folder.iterdir()} == {
        *("heads.json", "heads.json.sig", "heads.tsq", "heads.tsr", "authority.pem")
    }
    assert "BEGIN CERTIFICATE" in (folder / "authority.pem").read_text()
    said = vouched(folder, public_key=keys / "mine.pub", ca=authority.pem)
    assert said[0] == "signed by mine.pub"
    assert said[1] == f"stamped {done.stamped_at:%Y-%m-%dT%H:%M:%SZ} by an authority of authority.pem"
    (head,) = read_heads(folder)
    assert head.document() == HEAD.document()
    with pytest.raises(InputError, match="is there already"):
        anchor(HEAD, folder, T0)
    # what was changed since, or is vouched for by somebody else
    with pytest.raises(LedgerError, match=r"is not what other\.pub signed"):
        vouched(folder, public_key=keys / "other.pub")
    (folder / "heads.json").write_text((folder / "heads.json").read_text().replace("12", "11"))
    with pytest.raises(LedgerError, match=r"is not what mine\.pub signed"):
        vouched(folder, public_key=keys / "mine.pub")
    with pytest.raises(LedgerError, match=r"does not stamp heads\.json"):
        vouched(folder, ca=authority.pem)


def test_a_stamp_of_another_authority_or_of_another_question_is_refused(
    authority: Authority, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Authority(tmp_path_factory.mktemp("other"), "other")
    try:
        with pytest.raises(
            LedgerError, match=r"does not stamp heads\.json by an authority of authority\.pem"
        ):
            anchor(HEAD, tmp_path / "a", T0, url=other.url, ca=authority.pem)
        anchor(HEAD, tmp_path / "b", T0, url=other.url, ca=other.pem)
        other.answer = (tmp_path / "b" / "heads.tsr").read_bytes()  # the same heads, with another nonce
        with pytest.raises(LedgerError, match="nonce"):
            anchor(HEAD, tmp_path / "c", T0, url=other.url, ca=other.pem)
        other.answer = b"<html>busy</html>"
        with pytest.raises(LedgerError, match="does not stamp"):
            anchor(HEAD, tmp_path / "d", T0, url=other.url, ca=other.pem)
    finally:
        other.close()
    with pytest.raises(CarbonschedError, match="does not answer"):
        anchor(HEAD, tmp_path / "e", T0, url=other.url, ca=other.pem)


def test_what_is_not_there_is_named(keys: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    assert not anchor(HEAD, folder, T0).signed
    for asked, field in (
        ({"public_key": keys / "mine.pub"}, "--public-key"),
        ({"ca": keys / "mine.pub"}, "--ca"),
    ):
        with pytest.raises(InputError) as caught:
            vouched(folder, **asked)
        assert caught.value.field == field
    with pytest.raises(InputError, match="there is no key"):
        anchor(HEAD, tmp_path / "x", T0, key=keys / "none")
    (tmp_path / "garbage").write_text("no key\n")
    with pytest.raises(InputError, match="cannot sign"):
        anchor(HEAD, tmp_path / "y", T0, key=tmp_path / "garbage")

"""Lets others vouch for heads: a signature by an SSH key, and an RFC 3161 time stamp by an authority's server.

Both are made and verified by the tools that auditors have, OpenSSH's ssh-keygen and OpenSSL, and verified without a network: of a signature
the public key is needed, of a time stamp the authority's certificate.

heads.json       where both chains stood, and when
heads.json.sig   the signature (`ssh-keygen -Y verify -n carbonsched`)
heads.tsq        what the authority was asked, with the nonce
heads.tsr        its answer, with the token (`openssl ts -verify`)
authority.pem    the certificates that came in the token
"""

import json
import re
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import requests

from carbonsched.errors import CarbonschedError, InputError, LedgerError
from carbonsched.ledger.heads import HEADS, Head
from carbonsched.model.audit import Anchored
from carbonsched.model.base import rfc3339

_NAMESPACE: Final = "carbonsched"
_TIMEOUT_S: Final = 30.0
_MOST_BYTES: Final = 1024 * 1024
SYSTEM_CA: Final = Path("/etc/ssl/certs/ca-certificates.crt")


def anchor(
    head: Head,
    folder: Path,
    at: datetime,
    *,
    key: Path | None = None,
    url: str | None = None,
    ca: Path | None = None,
) -> Anchored:
    """Write heads into a new folder, signed with a private key, and stamped by the authority at a URL.

    The stamp is verified at once (ca: the authority's certificate; None: those of the system). Raises InputError, or CarbonschedError
    where a tool or the authority fails.
    """
    text = json.dumps({"at": rfc3339(at), **head.document()}, indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=False)
        (folder / HEADS).write_text(text, encoding="utf-8")
    except FileExistsError as e:
        raise InputError(
            "DIR", f"{folder} is there already", "an anchor is never written over; name a new folder"
        ) from e
    except OSError as e:
        raise InputError("DIR", f"{folder} cannot be written: {e.strerror}", "choose another folder") from e
    if key is not None:
        _sign(folder, key)
    stamped = None if url is None else _stamp(folder, url, ca)
    return Anchored(
        folder=str(folder),
        heads=head.chain_heads(),
        rows=head.rows or 0,
        entries=head.entries or 0,
        signed=key is not None,
        stamped_at=stamped,
    )


def vouched(folder: Path, *, public_key: Path | None = None, ca: Path | None = None) -> tuple[str, ...]:
    """Verify what is asked for: the signature by a public key, the time stamp by a certificate. Raises LedgerError where it does not
    hold, InputError where there is none."""
    said = []
    if public_key is not None:
        said.append(_signed(folder, public_key))
    if ca is not None:
        stamped = _stamped(folder, ca)
        said.append(f"stamped {stamped:%Y-%m-%dT%H:%M:%SZ} by an authority of {ca.name}")
    return tuple(said)


def _sign(folder: Path, key: Path) -> None:
    if not key.is_file():
        raise InputError("--sign", f"there is no key {key}", "make one: ssh-keygen -t ed25519 -N '' -f FILE")
    argv = ["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", _NAMESPACE, str(folder / HEADS)]
    ran = _run(argv, "--sign")
    if ran.returncode:
        raise InputError(
            "--sign",
            f"ssh-keygen cannot sign with {key}: {_last(ran)}",
            "give a private SSH key without a passphrase",
        )


def _signed(folder: Path, public_key: Path) -> str:
    signature = folder / f"{HEADS}.sig"
    if not signature.is_file():
        raise InputError(
            "--public-key", f"{folder} holds no {signature.name}", "leave it out: these heads were not signed"
        )
    try:
        kind, blob = public_key.read_text(encoding="utf-8").split()[:2]
    except (OSError, UnicodeDecodeError, ValueError) as e:
        raise InputError(
            "--public-key", f"{public_key} holds no public SSH key", "give the signer's .pub file"
        ) from e
    with tempfile.TemporaryDirectory() as scratch:
        allowed = Path(scratch) / "signers"
        allowed.write_text(f"{_NAMESPACE} {kind} {blob}\n", encoding="utf-8")
        argv = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", _NAMESPACE, "-n", _NAMESPACE]
        ran = _run([*argv, "-s", str(signature)], "--public-key", given=(folder / HEADS).read_bytes())
    if ran.returncode:
        raise LedgerError(f"{folder / HEADS} is not what {public_key.name} signed: {_last(ran)}")
    return f"signed by {public_key.name}"


def _stamp(folder: Path, url: str, ca: Path | None) -> datetime:
    query, answer = folder / "heads.tsq", folder / "heads.tsr"
    asked = _run(
        ["openssl", "ts", "-query", "-data", str(folder / HEADS), "-sha256", "-cert", "-out", str(query)],
        "--url",
    )
    if asked.returncode:
        raise CarbonschedError(f"openssl cannot make a time stamp's query: {_last(asked)}")
    answer.write_bytes(_asked(url, query.read_bytes()))
    stamped = _stamped(folder, ca or SYSTEM_CA, queried=True)
    token = folder / "token.p7"
    _run(["openssl", "ts", "-reply", "-in", str(answer), "-token_out", "-out", str(token)], "--url")
    _run(
        [
            "openssl",
            "pkcs7",
            "-inform",
            "DER",
            "-in",
            str(token),
            "-print_certs",
            "-out",
            str(folder / "authority.pem"),
        ],
        "--url",
    )
    token.unlink(missing_ok=True)
    return stamped


def _asked(url: str, query: bytes) -> bytes:
    headers = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
    try:
        with requests.post(url, data=query, headers=headers, timeout=_TIMEOUT_S, stream=True) as answer:
            answer.raise_for_status()
            body = answer.raw.read(_MOST_BYTES + 1, decode_content=True)
    except (requests.RequestException, OSError) as e:
        raise CarbonschedError(
            f"--url: the time stamp authority does not answer: {e}; try again, or name another"
        ) from e
    if len(body) > _MOST_BYTES:
        raise CarbonschedError("--url: the answer is larger than 1 MiB: that is no time stamp")
    return bytes(body)


def _stamped(folder: Path, ca: Path, *, queried: bool = False) -> datetime:
    """queried: the answer must be to our question, its nonce too."""
    answer = folder / "heads.tsr"
    if not answer.is_file():
        raise InputError(
            "--ca", f"{folder} holds no {answer.name}", "leave it out: these heads were not stamped"
        )
    if not ca.is_file():
        raise InputError(
            "--ca", f"there is no file {ca}", "give the certificate of the time stamp's authority (PEM)"
        )
    what = ["-queryfile", str(folder / "heads.tsq")] if queried else ["-data", str(folder / HEADS)]
    argv = ["openssl", "ts", "-verify", "-in", str(answer), "-CAfile", str(ca)]
    ran = _run([*argv, *what], "--ca")
    if ran.returncode:
        raise LedgerError(f"{answer} does not stamp {HEADS} by an authority of {ca.name}: {_last(ran)}")
    text = _run(["openssl", "ts", "-reply", "-in", str(answer), "-text"], "--ca").stdout.decode(
        errors="replace"
    )
    found = re.search(r"^Time stamp: (\w+ +\d+ [\d:]+)(?:\.\d+)? (\d+) GMT$", text, flags=re.M)
    if found is None:
        raise LedgerError(f"{answer} tells no time")
    return datetime.strptime(f"{found[1]} {found[2]}", "%b %d %H:%M:%S %Y").replace(tzinfo=UTC)


def _run(argv: list[str], field: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(argv, input=given, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError as e:
        raise InputError(field, f"{argv[0]} is not installed", "install it") from e
    except subprocess.TimeoutExpired as e:
        raise CarbonschedError(f"{field}: {argv[0]} did not end in {_TIMEOUT_S:g} s") from e


def _last(ran: subprocess.CompletedProcess[bytes]) -> str:
    """What a tool said, on one line."""
    lines = (ran.stderr + b"\n" + ran.stdout).decode(errors="replace").split("\n")
    return next(
        (line.strip() for line in lines if line.strip() and not line.startswith("Using conf")),
        "it does not say why",
    )

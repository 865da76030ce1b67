"""A PostgreSQL server of a test's own, on a socket in a folder of its own: no port, nothing left behind."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DEBIAN = Path("/usr/lib/postgresql")
_USER = "postgres"


def missing() -> str | None:
    """Why no server can be started here; None where one can."""
    if _program("initdb") is None:
        return "no PostgreSQL server is installed (initdb was not found)"
    if os.geteuid() == 0 and subprocess.run(["id", _USER], capture_output=True, check=False).returncode:
        return f"PostgreSQL refuses root, and there is no user {_USER}"
    return None


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of an empty database; the server ends with the block."""
    initdb, control = _program("initdb"), _program("pg_ctl")
    assert initdb is not None
    assert control is not None
    # not pytest's folder: the server's user may not pass through it, and the path of a socket is short
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        user = _USER if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(folder, user)
        data = str(Path(folder) / "data")
        options = f"-c listen_addresses='' -k {folder} -c fsync=off"
        _run([initdb, "-D", data, "-U", "ledger", "-A", "trust", "--no-sync"], user)
        _run([control, "-D", data, "-w", "-o", options, "-l", f"{folder}/log", "start"], user)
        try:
            yield f"postgresql://ledger@/postgres?host={folder}"
        finally:
            _run([control, "-D", data, "-m", "immediate", "-w", "stop"], user)


def _run(command: list[str], user: str | None) -> None:
    subprocess.run(command, user=user, cwd="/", stdout=subprocess.DEVNULL, check=True, timeout=60)


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found is None and _DEBIAN.is_dir():
        found = next((str(p) for p in sorted(_DEBIAN.glob(f"*/bin/{name}"), reverse=True)), None)
    return found

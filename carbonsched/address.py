"""Says where the daemon listens. Apart from the config, so that a command which only asks the daemon starts fast."""

import os
from pathlib import Path


def socket_path(explicit: str | None = None, configured: str | None = None) -> Path:
    """The Unix socket of the API: --socket, $CARBONSCHED_SOCKET, the config's `api.socket`, $XDG_RUNTIME_DIR, or /run.

    >>> socket_path("/tmp/box.sock")
    PosixPath('/tmp/box.sock')
    """
    chosen = explicit or os.environ.get("CARBONSCHED_SOCKET") or configured
    if chosen:
        return Path(chosen)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or "/run") / "carbonsched" / "api.sock"

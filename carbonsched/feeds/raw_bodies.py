"""Keeps what providers answered, by hash, so that an auditor can check the hash that a ledger row carries.

`<state_dir>/bodies/<sha256>.gz`, the oldest dropped once all of them take more than a cap.
"""

import gzip
import hashlib
import logging
import os
import zlib
from pathlib import Path
from typing import Final

from carbonsched.errors import InputError
from carbonsched.feeds.transport import Body

CAP_BYTES: Final = 200_000_000
"""Of compressed bodies: about a year of three providers that are asked every five minutes."""
_PRUNE_EVERY: Final = 200
"""Bodies between two looks at what all of them take."""

log = logging.getLogger(__name__)


class RawBodies:
    """The folder of kept bodies. Used by one thread.

    Example::

        bodies = RawBodies(state_dir / "bodies")
        bodies.keep(body)
        raw = bodies.read(reading.source.body_sha256)
    """

    def __init__(self, folder: Path, cap_bytes: int = CAP_BYTES) -> None:
        self._folder, self._cap_bytes = folder, cap_bytes
        self._since_pruned = _PRUNE_EVERY
        self._failing = False
        self._closed = False

    def keep(self, body: Body) -> None:
        """Write the body, if it is not there. Never raises: a full disk costs evidence, not the signal; said once."""
        path = self._path(body.sha256)
        if path.exists():
            return
        try:
            self._make_folder()
            half = path.with_suffix(".part")
            half.unlink(missing_ok=True)
            # one fixed time in the gzip header: the same body is the same file
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(gzip.compress(body.raw, mtime=0))
            half.replace(path)
            self._since_pruned += 1
            if self._since_pruned >= _PRUNE_EVERY:
                self._since_pruned = 0
                self._prune()
            self._failing = False
        except OSError as e:
            if not self._failing:
                log.warning("answers of the feeds are not kept: %s: %s", self._folder, e.strerror)
            self._failing = True

    def read(self, sha256: str) -> bytes:
        """The raw bytes, checked. Raises InputError where they are not kept, or are not what they were."""
        path = self._path(sha256)
        try:
            raw = gzip.decompress(path.read_bytes())
        except (OSError, EOFError, ValueError, zlib.error) as e:
            raise InputError("sha256", f"{path} cannot be read: {e}", "it was dropped, or never kept") from e
        if hashlib.sha256(raw).hexdigest() != sha256:
            raise InputError("sha256", f"{path} is not the body of that hash", "it was changed")
        return raw

    def _make_folder(self) -> None:
        """It is the daemon's user's alone, like the ledger; what an earlier version left open is closed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._closed:
            self._folder.chmod(0o700)
            self._closed = True

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.gz"

    def _prune(self) -> None:
        found = sorted(
            (
                (status.st_mtime, status.st_size, entry.path)
                for entry in os.scandir(self._folder)
                for status in [entry.stat()]
            ),
            reverse=True,
        )
        total = 0
        for _, size, path in found:
            total += size
            if total > self._cap_bytes:
                Path(path).unlink(missing_ok=True)

"""Reads one number from a JSON file that another program writes, and says since when it holds."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Site, SourceSettings
from carbonsched.model.grid import Basis, Kind, Source


class NumberFile:
    """`{"KEY": NUMBER}`, as a feed reads it. The number holds since the file was written."""

    local = True  # costs nothing: it is read even while a feed before it is healthy

    def __init__(
        self, settings: SourceSettings, file: str, key: str, site: Site, basis: Basis | None = None
    ) -> None:
        self.name, self.zone = settings.shown_name, site.zone.name
        self.every_s, self.max_age_s = settings.every, settings.max_age
        self._path, self._key, self._clock, self._states = Path(file), key, site.clock, basis

    def read(self) -> tuple[datetime, datetime, float, Source]:
        """(start, end, value, where it came from). Raises FeedError where the file is missing, old or holds something else."""
        now = self._clock.now()
        try:
            raw = self._path.read_bytes()
            written = datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
            content = json.loads(raw)
        except OSError as e:
            raise FeedError(f"{self._path}: {e.strerror}") from e
        except (ValueError, RecursionError) as e:
            raise FeedError(f"{self._path}: is not JSON") from e
        value = content.get(self._key) if isinstance(content, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FeedError(f'{self._path}: write {{"{self._key}": NUMBER}}')
        if (now - written).total_seconds() > self.max_age_s:
            raise FeedError(f"{self._path}: not written since {written:%Y-%m-%dT%H:%MZ}")
        source = Source(
            provider=self.name,
            zone=self.zone,
            basis=self._states,
            kind=Kind.ACTUAL,
            fetched_at=now,
            body_sha256=hashlib.sha256(raw).hexdigest(),
            note=f"from {self._path.name}",
        )
        # it holds until it is read again, and over one poll that is late; after that the chain calls it estimated
        return written, now + timedelta(seconds=2 * self.every_s), float(value), source

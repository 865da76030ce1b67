"""A grid feed that reads one intensity from a JSON file, such as a building's own energy manager may write.

[[feeds]]
provider = "example-file"
file = "/run/building/intensity.json"     # {"g_per_kwh": 212.0}
basis = "average-lifecycle"
"""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Feed, FeedSettings, Site
from carbonsched.model.base import Doc, LocalPath
from carbonsched.model.grid import Basis, Kind, Reading, Source


class FileFeedSettings(FeedSettings):
    """Keys of `[[feeds]]` with provider = "example-file"."""

    provider: Literal["example-file"]
    file: LocalPath
    """JSON: {"g_per_kwh": NUMBER}. When it was written is when the value was valid from."""
    basis: Basis
    """What the number means. Required: a file cannot say it, and a budget never mixes two."""

    def build(self, site: Site) -> Feed:
        return FileFeed(self, site)


class _Content(Doc):
    g_per_kwh: Annotated[float, Field(ge=0)]


class FileFeed:
    """Answers one reading: from when the file was written until the poll after next."""

    local = True  # costs nothing: it is read even while a feed before it is healthy

    def __init__(self, settings: FileFeedSettings, site: Site) -> None:
        self.name, self.zone, self.basis = settings.shown_name, site.zone.name, settings.basis
        self.every_s, self.max_age_s = settings.every, settings.max_age
        self._path, self._clock = Path(settings.file), site.clock

    def poll(self) -> Answer:
        """Raises FeedError where the file is missing, older than `max_age` or holds something else."""
        now = self._clock.now()
        try:
            raw = self._path.read_bytes()
            written = datetime.fromtimestamp(self._path.stat().st_mtime, UTC)
            content = _Content.model_validate_json(raw)
        except OSError as e:
            raise FeedError(f"{self._path}: {e.strerror}") from e
        except ValidationError as e:
            raise FeedError(f'{self._path}: write {{"g_per_kwh": NUMBER}}; {e.errors()[0]["msg"]}') from e
        if (now - written).total_seconds() > self.max_age_s:
            raise FeedError(f"{self._path}: not written since {written:%Y-%m-%dT%H:%MZ}")
        source = Source(
            provider=self.name,
            zone=self.zone,
            basis=self.basis,
            kind=Kind.ACTUAL,
            fetched_at=now,
            body_sha256=hashlib.sha256(raw).hexdigest(),
            note=f"from {self._path.name}",
        )
        # it holds until it is read again, and over one poll that is late; after that the chain calls it estimated
        end = now + timedelta(seconds=2 * self.every_s)
        return Answer((Reading(start=written, end=end, g_per_kwh=content.g_per_kwh, source=source),))

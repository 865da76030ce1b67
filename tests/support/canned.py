"""A network that gives one answer, whatever is asked: for inputs by the thousand, which no server could serve in time."""

import hashlib
import json
from typing import Any

from carbonsched.errors import FeedError
from carbonsched.feeds.base import Answer, Feed
from carbonsched.feeds.transport import Body


class Canned:
    """Set `document`, or `raw` where the answer is no JSON, before each poll."""

    def __init__(self) -> None:
        self.document: Any = None
        self.raw = b""

    def get(self, url: str, *, json: bool = True, **_: Any) -> Body:
        self.choose(url)
        return self._body(self.document if json else None)

    def post(self, url: str, **_: Any) -> Body:
        self.choose(url)
        return self._body(self.document)

    def choose(self, url: str) -> None:
        """Hook: set `document` by what is asked."""

    def _body(self, document: Any) -> Body:
        raw = self.raw if document is None else json.dumps(document).encode("utf-8", "surrogatepass")
        return Body(document, hashlib.sha256(raw).hexdigest(), raw)


def answers_or_fails(feed: Feed) -> Answer | None:
    """What a poll answers; None where it fails with FeedError, of one line. No other exception may come."""
    try:
        answer = feed.poll()
    except FeedError as e:
        message = str(e)
    else:
        assert all(reading.start < reading.end for reading in answer.readings)
        return answer
    assert "\n" not in message
    return None


class CannedByPath(Canned):
    """Answers with the document whose key is the last word of the path."""

    def __init__(self) -> None:
        super().__init__()
        self.documents: dict[str, Any] = {}

    def choose(self, url: str) -> None:
        self.document = self.documents.get(url.rsplit("/", 1)[1])

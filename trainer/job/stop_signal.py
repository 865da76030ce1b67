"""Records SIGTERM and SIGINT, and ends the process at once as long as nothing can be lost by it.

Standard library only: `python -m trainer` installs it before it imports anything that takes time. While training, a signal only sets a flag,
which the trainer polls, so that a checkpoint is never cut short. While torch and transformers are imported nobody polls: there the
signal raises `StoppedAtOnce`.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedAtOnce(BaseException):
    """Raised out of an import. No subclass of Exception: a library that tries an import catches those.

    Example:
        >>> isinstance(StoppedAtOnce(), Exception)
        False
    """


@dataclass(slots=True)
class StopSignal:
    """Whether a signal came.

    Example:
        >>> stop = StopSignal()
        >>> with stop.handled(), stop.at_once():
        ...     pass
        >>> stop.asked()
        False
    """

    signalled: bool = False
    installed: bool = False
    """For good, from the beginning of the process on."""
    _raises: bool = False

    def asked(self) -> bool:
        return self.signalled

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        self.signalled = True
        if self._raises:
            self._raises = False
            raise StoppedAtOnce

    @contextmanager
    def handled(self) -> Iterator["StopSignal"]:
        """Install the handler, and put the ones before it back at the end."""
        before = {number: signal.signal(number, self.note) for number in SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A signal that came before, or comes meanwhile, ends this block. Raises StoppedAtOnce."""
        self._raises = True
        try:
            if self.signalled:
                raise StoppedAtOnce
            yield
        finally:
            self._raises = False
        if self.signalled:  # a library caught what the handler raised
            raise StoppedAtOnce


EARLY = StopSignal()
"""The one of this process, where `python -m trainer run` installed it at its very beginning."""


def install_early(argv: list[str]) -> None:
    """Install the handler for good if a job is to be run. argv: the process's, without its program."""
    if argv[:1] == ["run"]:
        EARLY.installed = True
        for number in SIGNALS:
            signal.signal(number, EARLY.note)

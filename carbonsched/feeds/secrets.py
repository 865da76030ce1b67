"""Reads a secret of the config from where it is kept: the environment, a file, or a systemd credential; never the config itself.

It is read each time it is used, so that a new one takes effect without a restart, and appears in no message.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from carbonsched.errors import FeedError, InputError

_CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""Where systemd puts the credentials of a unit (systemd.exec(5))."""
_LONGEST = 8192
"""Characters that a server takes in a header, mostly."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A place where a secret is kept.

    Example:
        >>> os.environ["EXAMPLE_TOKEN"] = "abc"
        >>> Secret.of("token", env="EXAMPLE_TOKEN", file=None, credential=None).read()
        'abc'
    """

    field: str
    """The key of the config that names the place, for messages."""
    env: str | None = None
    path: Path | None = None

    @classmethod
    def of(cls, name: str, *, env: str | None, file: str | None, credential: str | None) -> "Secret":
        """The one that is given. Raises InputError where none is, or more than one.

        name: of the secret, e.g. `token`: the keys are `token_env`, `token_file` and `token_credential`.
        """
        given = {"env": env, "file": file, "credential": credential}
        keys = [f"{name}_{kind}" for kind, value in given.items() if value]
        if len(keys) != 1:
            problem = f"{' and '.join(keys)} are set" if keys else "is missing"
            hint = f"set one of {name}_env, {name}_file and {name}_credential"
            raise InputError(keys[0] if keys else f"{name}_file", problem, hint)
        if credential:
            folder = os.environ.get(_CREDENTIALS)
            if folder is None:
                hint = (
                    f"start the daemon by systemd with LoadCredential={credential}:PATH, or use {name}_file"
                )
                raise InputError(
                    keys[0], "there are no credentials: this is no systemd unit that loads any", hint
                )
            return cls(keys[0], path=Path(folder) / credential)
        return cls(keys[0], env=env, path=Path(file).expanduser() if file else None)

    def read(self) -> str:
        """The secret. Raises FeedError in one line that holds nothing of it: not there, empty, open to others."""
        text = self._environment() if self.path is None else self._file(self.path)
        if len(text) > _LONGEST:
            raise FeedError(
                f"{self.field}: {self._where} is longer than {_LONGEST} characters: is it the right one?"
            )
        secret = text.strip()
        if not secret:
            raise FeedError(f"{self.field}: {self._where} is empty")
        if not secret.isascii() or not secret.isprintable():
            raise FeedError(f"{self.field}: {self._where} holds more than one line of printable ASCII")
        return secret

    @property
    def _where(self) -> str:
        return f"the variable {self.env}" if self.path is None else str(self.path)

    def _environment(self) -> str:
        found = os.environ.get(self.env or "")
        if found is None:
            raise FeedError(f"{self.field}: {self._where} is not set")
        return found

    def _file(self, path: Path) -> str:
        try:
            # a pipe that nobody writes to would keep the poll
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise FeedError(f"{self.field}: {path} is no file")
                # root may share one of its own with the daemon's group; anybody else's is that one's alone
                closed = stat.S_IRWXO if status.st_uid == 0 else stat.S_IRWXG | stat.S_IRWXO
                if status.st_mode & closed:
                    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
                    raise FeedError(f"{self.field}: {path} is open to others ({mode}): chmod 600 {path}")
                return file.read(_LONGEST + 1).decode("utf-8", "replace")
        except OSError as e:
            raise FeedError(f"{self.field}: {path} cannot be read: {e.strerror}") from e

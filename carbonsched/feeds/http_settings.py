"""The keys that feeds over HTTP take: address, waiting time, token or login; a provider's settings subclass one of them."""

from typing import Annotated

from pydantic import Field, field_validator

from carbonsched.feeds.base import FeedSettings, SourceSettings
from carbonsched.feeds.secrets import Secret
from carbonsched.feeds.transport import address_problem
from carbonsched.model.base import Duration, LocalPath, refusal

Timeout = Annotated[Duration, Field(le=60)]
"""A provider that takes longer keeps the feeds behind it waiting."""


class HttpKeys(SourceSettings):
    """Keys that every source over HTTP takes, whatever its values are of.

    Example::

        class SunPriceSettings(HttpKeys):
            provider: Literal["sun"]
    """

    url: str | None = None
    """Base URL, for a mirror or a test server; None: the provider's own."""
    timeout: Timeout = 10.0
    """How long one request may take."""

    @field_validator("url")
    @classmethod
    def _is_a_bare_address(cls, url: str | None) -> str | None:
        if url is not None and (problem := address_problem(url)):
            # what is wrong with it may hold a secret, so it is not repeated
            keys = [
                f"{kind}_env or {kind}_file"
                for kind in ("token", "password")
                if f"{kind}_env" in cls.model_fields
            ]
            secret = f"; a secret goes into {', or '.join(keys)}" if keys else ""
            raise refusal("", problem, f"write it like http://10.0.0.2:9090{secret}")
        return url


class TokenKeys(HttpKeys):
    """Keys of a source that wants a token, kept in one of three places, never in the config.

    Example::

        class SunPriceSettings(TokenKeys):
            provider: Literal["sun"]
    """

    token_env: str | None = None
    """Environment variable that holds the token."""
    token_file: LocalPath | None = None
    """File that holds the token, readable for the daemon's user alone (0600)."""
    token_credential: str | None = None
    """systemd credential that holds the token (`LoadCredential=`)."""

    def token(self) -> Secret:
        """Where the token is. Raises InputError where no place is given, or two."""
        return Secret.of("token", env=self.token_env, file=self.token_file, credential=self.token_credential)


class LoginKeys(HttpKeys):
    """Keys of a source that wants a password, kept in one of three places, never in the config.

    Example::

        class SunPriceSettings(LoginKeys):
            provider: Literal["sun"]
            username: str
    """

    password_env: str | None = None
    """Environment variable that holds the password."""
    password_file: LocalPath | None = None
    """File that holds the password, readable for the daemon's user alone (0600)."""
    password_credential: str | None = None
    """systemd credential that holds the password (`LoadCredential=`)."""

    def password(self) -> Secret:
        """Where the password is. Raises InputError where no place is given, or two."""
        return Secret.of(
            "password", env=self.password_env, file=self.password_file, credential=self.password_credential
        )


class HttpSettings(HttpKeys, FeedSettings):
    """Keys that every feed of intensities over HTTP takes.

    Example::

        class SunSettings(HttpSettings):
            provider: Literal["sun"]
    """


class TokenSettings(TokenKeys, HttpSettings):
    """Keys of a feed of intensities that wants a token.

    Example::

        class SunSettings(TokenSettings):
            provider: Literal["sun"]
    """


class LoginSettings(LoginKeys, HttpSettings):
    """Keys of a feed of intensities that wants a password.

    Example::

        class SunSettings(LoginSettings):
            provider: Literal["sun"]
            username: str
    """

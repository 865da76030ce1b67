"""`[[notify]]`: where the site is told of jobs. A job itself may ask for mail to its submitter, and for nothing else.

A command or an address of a job's own choice would run, or be asked, with the daemon's rights: `carbonsched wait ID && …` does that
with the user's own.
"""

from typing import Annotated, Self

from pydantic import Field, model_validator

from carbonsched.model.base import Doc, LocalPath, refusal
from carbonsched.model.notification import Happening

EVERYTHING = tuple(Happening)
OWNER = "owner"
"""As a mail address: the submitter's mailbox on this box."""


class NotifyConfig(Doc):
    """One of `[[notify]]`.

    Example:
        >>> NotifyConfig(mail="ops@example.org", on=["failed"]).on
        (<Happening.FAILED: 'failed'>,)
    """

    on: tuple[Happening, ...] = EVERYTHING
    command: LocalPath | None = None
    """A program: the notification on its stdin, as the daemon's user, without a shell."""
    webhook: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    """An address that is posted to; one that is a secret belongs in `webhook_file`."""
    webhook_file: LocalPath | None = None
    """Holds the address, open to nobody else."""
    token_file: LocalPath | None = None
    """Holds what is sent to the webhook as a bearer token."""
    mail: (
        Annotated[str, Field(pattern=r"^(owner|[A-Za-z0-9][A-Za-z0-9._+-]*(@[A-Za-z0-9][A-Za-z0-9.-]*)?)$")]
        | None
    ) = None
    """An address, or `owner` for the submitter's mailbox on this box."""
    sendmail: LocalPath = "/usr/sbin/sendmail"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [
            key for key in ("command", "webhook", "webhook_file", "mail") if getattr(self, key) is not None
        ]
        if len(ways) != 1:
            problem = f"{' and '.join(ways)} are set" if ways else "is missing"
            raise refusal(
                ways[0] if ways else "command", problem, "give one of command, webhook, webhook_file and mail"
            )
        if self.token_file is not None and "webhook" not in ways[0]:
            raise refusal("token_file", "is sent to a webhook alone", "drop it")
        return self

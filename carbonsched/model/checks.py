"""What `doctor` and `config check` print: one Check per inspected item."""

from carbonsched.model.base import Doc


class Check(Doc):
    """The state of one thing that the daemon needs, and how to fix it.

    Example:
        >>> Check(name="disk", ok=False, found="0.2 GB free in /var/lib/carbonsched", hint="free 1 GB").ok
        False
    """

    name: str
    ok: bool | None
    """None: it cannot be checked from here."""
    found: str
    hint: str | None = None
    """What to do: about what fails, or to have it better."""


class CheckList(Doc):
    """`doctor`, `config check`.

    Example:
        >>> CheckList(checks=[Check(name="clock", ok=None, found="no timedatectl here")]).ok
        True
    """

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check fails."""
        return all(check.ok is not False for check in self.checks)


class Installation(Doc):
    """`install` and `uninstall`: the files, by what happened to them.

    Example:
        >>> Installation(removed=("/usr/local/bin/carbonsched",)).removed
        ('/usr/local/bin/carbonsched',)
    """

    installed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    shadowed_by: tuple[str, ...] = ()
    """Units of the same names that systemd uses instead of these."""
    removed: tuple[str, ...] = ()

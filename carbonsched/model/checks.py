"""What `doctor` and `config check` print: one Check for every thing that was looked at."""

from carbonsched.model.base import Doc


class Check(Doc):
    """What was found of one thing that the daemon needs, and the fix.

    Example:
        >>> Check(name="disk", ok=False, found="0.2 GB free in /var/lib/carbonsched", hint="free 1 GB").ok
        False
    """

    name: str
    ok: bool | None
    """None: it could not be looked at from here."""
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
        """Whether nothing that was looked at fails."""
        return all(check.ok is not False for check in self.checks)


class Installation(Doc):
    """`install` and `uninstall`: the files, by what became of them.

    Example:
        >>> Installation(removed=("/usr/local/bin/carbonsched",)).removed
        ('/usr/local/bin/carbonsched',)
    """

    installed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    shadowed_by: tuple[str, ...] = ()
    """Units of the same names that systemd takes in place of these."""
    removed: tuple[str, ...] = ()

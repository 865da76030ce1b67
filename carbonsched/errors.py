"""The tree of errors that carbonsched raises on purpose.

    CarbonschedError
    ├── InputError          bad usage, config, job, trace or data: exit code 2, names the field, with a hint
    ├── FeedError           a grid feed gave no usable answer; the chain tries the next one
    ├── PowerError          a power meter could not be read; the energy becomes unknown, never 0
    ├── LedgerError         the ledger refused a row or does not verify
    ├── LaunchError         a job could not be started, stopped or adopted
    ├── NotFoundError       no such job
    ├── StateError          the job is in a state that does not allow this
    ├── DeniedError         not for this user
    └── UnreachableError    the daemon does not answer: exit code 3

Vendor errors are wrapped at the edge with `from e`. A message is one line that says what to do.
"""

_LONGEST = 400
"""Characters of a message that quotes a provider."""
_LONGEST_PART = 1000
"""Of each part of a message about input, whose end is kept: there stands what is wrong with what is quoted."""
_END = 200


class CarbonschedError(Exception):
    """Base of the tree; `exit_code` is what a command ends with (docs/cli.md).

    Example:
        >>> issubclass(InputError, CarbonschedError), CarbonschedError.exit_code
        (True, 1)
    """

    exit_code = 1


class InputError(CarbonschedError):
    """One line: the field, the problem and a hint what to do, e.g. `carbon.budget_g: must be above 0, is -3; …`.

    Example:
        >>> str(InputError("carbon.budget_g", "must be above 0, is -3", "give the grams in all"))
        'carbon.budget_g: must be above 0, is -3; give the grams in all'
    """

    exit_code = 2
    others: tuple["InputError", ...] = ()
    """What else is wrong with the same document."""

    def __init__(self, field: str, problem: str, hint: str = "") -> None:
        self.field, self.problem, self.hint = (_shortened(_one_line(part)) for part in (field, problem, hint))
        text = f"{self.field}: {self.problem}" if self.field else self.problem
        super().__init__(f"{text}; {self.hint}" if self.hint else text)


def _one_line(text: str) -> str:
    """What a user's file says is quoted in errors: it must not break the line, move the cursor or fail to be printed."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_PART else f"{line[: _LONGEST_PART - _END]}…{line[-_END:]}"


class FeedError(CarbonschedError):
    """A grid feed gave no usable answer.

    Example:
        >>> str(FeedError("neso answered 503"))
        'neso answered 503'
    """

    def __init__(self, message: str) -> None:
        """message: may quote the provider; what is long is cut."""
        line = _one_line(message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…")


class PowerError(CarbonschedError):
    """A power meter could not be read.

    Example:
        >>> str(PowerError("NVML: driver not loaded"))
        'NVML: driver not loaded'
    """


class LedgerError(CarbonschedError):
    """The ledger refused a row, or does not verify.

    Example:
        >>> LedgerError("row 7 was changed after it was written").exit_code
        1
    """


class LedgerBusyError(LedgerError):
    """Another process holds the ledger: it answers nothing for as long.

    Example:
        >>> isinstance(LedgerBusyError("database is locked"), LedgerError)
        True
    """


class LaunchError(CarbonschedError):
    """A job's process could not be started, stopped or found.

    Example:
        >>> LaunchError("scitldr-7f3a1c runs already").exit_code
        1
    """


class NotFoundError(CarbonschedError):
    """There is no such job.

    Example:
        >>> NotFoundError("there is no job x").exit_code
        2
    """

    exit_code = 2


class StateError(CarbonschedError):
    """The job is in a state that does not allow this.

    Example:
        >>> StateError("a finished job cannot be paused").exit_code
        1
    """


class DeniedError(CarbonschedError):
    """Not for this user.

    Example:
        >>> DeniedError("only alice and root may cancel it").exit_code
        1
    """


class UnreachableError(CarbonschedError):
    """The daemon does not answer.

    Example:
        >>> UnreachableError("no daemon there").exit_code
        3
    """

    exit_code = 3

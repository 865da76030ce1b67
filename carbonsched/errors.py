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


class CarbonschedError(Exception):
    """Base of the tree; `exit_code` is what a command ends with (docs/cli.md)."""

    exit_code = 1


class InputError(CarbonschedError):
    """One line: the field, the problem and a hint what to do, e.g. `carbon.budget_g: must be above 0, is -3; …`."""

    exit_code = 2

    def __init__(self, field: str, problem: str, hint: str = "") -> None:
        self.field, self.problem, self.hint = field, problem, hint
        text = f"{field}: {problem}" if field else problem
        super().__init__(f"{text}; {hint}" if hint else text)


class FeedError(CarbonschedError):
    pass


class PowerError(CarbonschedError):
    pass


class LedgerError(CarbonschedError):
    pass


class LaunchError(CarbonschedError):
    pass


class NotFoundError(CarbonschedError):
    exit_code = 2


class StateError(CarbonschedError):
    pass


class DeniedError(CarbonschedError):
    pass


class UnreachableError(CarbonschedError):
    exit_code = 3

"""Settings for all tests: Hypothesis without a deadline (shared machines), and the same examples at every CI run.

Warnings are errors (pyproject.toml). With `--list-deprecations` those that libraries raise about each other are listed at the
end instead, since a new release may bring them any day; what our own files cause stays an error.
"""

import os
import signal

import pytest
from hypothesis import settings

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# What runs in a shell's background ignores SIGINT and hands that on; tests press Ctrl-C on the programs they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--list-deprecations", action="store_true", help="list deprecations, fail on our own alone"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--list-deprecations"):
        for category in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
            config.addinivalue_line("filterwarnings", f"default::{category}")
        # the last line that matches holds
        config.addinivalue_line("filterwarnings", r"error:::(carbonsched|trainer|tests)\b")

"""Settings for all tests: Hypothesis without a deadline (shared machines), and the same examples at every CI run.

Warnings are errors (pyproject.toml). With `--list-deprecations` those that libraries raise about each other are listed at the
end instead, since a new release may bring them any day; what our own files cause stays an error.
"""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

# A daemon may serve this very box: no test may reach it by the default socket.
_RUNTIME = tempfile.TemporaryDirectory(prefix="carbonsched-tests-")
os.environ["XDG_RUNTIME_DIR"] = _RUNTIME.name
os.environ.pop("CARBONSCHED_SOCKET", None)

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


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """A trainer that runs in this process sets variables of it (CUDA_VISIBLE_DEVICES): the next test does not see them."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if os.environ.get(name) != value})


@pytest.fixture
def tried(record_property: Callable[[str, object], None]) -> Iterator[Callable[[], None]]:
    """Counts the inputs of a test marked `fuzz`."""
    count = 0

    def one_more() -> None:
        nonlocal count
        count += 1

    yield one_more
    record_property("fuzz inputs", count)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if "CARBONSCHED_FUZZ" not in os.environ:
        return
    counts = {
        report.nodeid: value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown" or hasattr(report, "user_properties")
        for name, value in getattr(report, "user_properties", ())
        if name == "fuzz inputs"
    }
    for test, count in sorted(counts.items()):
        terminalreporter.write_line(f"{count:>9,} inputs  {test}")
    terminalreporter.write_line(f"{sum(counts.values()):>9,} inputs in all")

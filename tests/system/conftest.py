"""One machine with the daemon for all tests that do not install it themselves."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.installed import give_a_job_to_alice, installed
from support.machine import Machine

TRAIN = {"epochs": 12, "batch_size": 1, "lr": 1e-3}
"""A job of a minute: long enough to fall in its midst."""


@pytest.fixture(scope="session")
def box() -> Iterator[Machine]:
    with installed("daemon") as box:
        give_a_job_to_alice(box, train=TRAIN)
        box.run("usermod -aG carbonsched alice")
        yield box


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(2400))
            if "CARBONSCHED_SYSTEM" not in os.environ:
                item.add_marker(pytest.mark.skip(reason="boots a Debian: `make system`, as root"))

"""The models and rows that most tests of the trainer train on; made once, and never written to."""

from pathlib import Path

import pytest
from support.models import tiny_llama, tiny_t5, word_data


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_data(tmp_path_factory.mktemp("data"))

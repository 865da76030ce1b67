"""Models and data sets of the hub where it cannot be reached, is slow, or is not to be asked."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.http_server import Reply, serve
from support.models import tiny_llama, word_data

from trainer import hub_reach

VARIABLES = (
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "ALL_PROXY",
)


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process in which nothing was asked yet."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(hub_reach, "_unreached", None)
    monkeypatch.setattr(hub_reach, "PAUSES_S", (0.0, 0.0))
    for module in ("huggingface_hub.constants", "datasets.config"):
        if module in sys.modules:
            monkeypatch.setattr(sys.modules[module], "HF_HUB_OFFLINE", False)


def closed() -> str:
    """An address at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_a_hub_that_is_not_there_leaves_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed())
    hub_reach.prepare("org/model")
    assert hub_reach.is_offline()
    assert os.environ["HF_HUB_OFFLINE"] == "1", "for the processes that it starts"
    said = str(hub_reach.refusal("model.name_or_path", "org/model", "a model"))
    assert said.startswith(
        "model.name_or_path: org/model is no folder here and not in the hub's cache (~/.cache"
    )
    assert (
        "the hub (127.0.0.1) cannot be reached: Connection refused; give the folder of a model, or fetch"
        in said
    )
    assert said.endswith("hf download org/model")
    said = str(hub_reach.refusal("data.name_or_path", "org/rows", "a data set"))
    assert said.endswith("hf download --repo-type dataset org/rows")


def test_one_that_is_there_is_asked_however_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda path: Reply(delay_s=5)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        hub_reach.prepare("org/model")
    assert not hub_reach.is_offline()
    assert hub_reach.refusal("model.name_or_path", "org/model", "a model") is None


def test_a_proxy_stands_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda path: Reply()) as server:
        monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
        monkeypatch.setenv("HTTPS_PROXY", server.url)
        hub_reach.prepare("org/model")
        assert not hub_reach.is_offline()
    hub_reach.prepare("org/model")
    assert "the proxy 127.0.0.1, by which the hub is asked, cannot be reached: " in str(
        hub_reach.refusal("model.name_or_path", "org/model", "a model")
    )


def test_a_name_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        daemon = True

        def __init__(self, **_: object) -> None: ...
        def start(self) -> None: ...
        def join(self, timeout: float) -> None: ...

    monkeypatch.setattr(hub_reach.threading, "Thread", Silent)
    hub_reach.prepare("org/model")
    assert "cannot be reached: no answer in 10 s" in str(hub_reach.refusal("model", "org/model", "a model"))


def test_a_folder_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", closed())
    hub_reach.prepare(str(tmp_path))
    assert not hub_reach.is_offline()


def test_whoever_forbids_the_network_is_told_of_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if "huggingface_hub.constants" in sys.modules:
        monkeypatch.setattr(sys.modules["huggingface_hub.constants"], "HF_HUB_OFFLINE", True)
    hub_reach.prepare("org/model")
    said = str(hub_reach.refusal("model.name_or_path", "org/model", "a model"))
    assert "and HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE to have it fetched, or give the folder" in said


def checked(folder: Path, model: str, data: str) -> "subprocess.CompletedProcess[str]":
    job = folder / "job.toml"
    job.write_text(
        f'name = "a"\n[model]\nname_or_path = "{model}"\n[data]\nname_or_path = "{data}"\n[carbon]\nbudget_g = 1\n'
    )
    env = os.environ | {"HF_ENDPOINT": closed(), "HF_HOME": str(folder / "hf"), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, "-m", "trainer", "check", str(job)]
    return subprocess.run(argv, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_check_without_a_network_is_one_line_or_reads_the_cache(tmp_path: Path) -> None:
    """The hub's library alone asks six times for each file, in half a minute and eleven lines."""
    tiny_llama(tmp_path / "model")
    word_data(tmp_path / "data")
    for model, data, field in (
        ("org/model", "./data", "model.name_or_path: org/model"),
        ("./model", "org/rows", "data.name_or_path: org/rows"),
    ):
        done = checked(tmp_path, model, data)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert done.stderr.startswith(
            f"trainer: {field} is no folder here and not in the hub's cache ({tmp_path}"
        )
    kept = tmp_path / "hf" / "hub" / "models--org--model"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    shutil.copytree(tmp_path / "model", kept / "snapshots" / ("0" * 40))
    done = checked(tmp_path, "org/model", "./data")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr

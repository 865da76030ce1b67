"""docs/how-to.md is run from top to bottom against a real daemon, and every command prints what the page says."""

import getpass
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import OFFLINE, DaemonProcess
from support.how_to import Step, alike, steps, told_as
from support.models import tiny_llama, word_data

PAGE = Path(__file__).parents[2] / "docs" / "how-to.md"
TEXT = PAGE.read_text(encoding="utf-8")
COMMAND_S = 900.0
COLUMNS = 120


@pytest.mark.parametrize("who", ["Operator", "Engineer"])
def test_there_are_fifteen_tasks_of_each(who: str) -> None:
    assert [int(n) for n in re.findall(rf"^### {who} (\d+): ", TEXT, flags=re.M)] == [*range(1, 16)]


def test_every_task_shows_a_command() -> None:
    tasks = re.findall(r"^### (.+)$", TEXT, flags=re.M)
    assert {step.task for step in steps(TEXT) if step.command} == set(tasks)


def test_another_state_or_a_missing_line_is_not_the_same() -> None:
    expected = "ID           STATE    LEFT\nqa-7f3a1c  running  3m 08s\n…\nlast\n"
    assert told_as("ID  STATE  LEFT\nqa-000000  running  -\nmore\nmore\nlast\n", expected)
    assert not told_as("ID  STATE  LEFT\nqa-000000  failed  -\nlast\n", expected)
    assert not told_as("ID  STATE  LEFT\nlast\n", expected)
    assert not told_as("ID  STATE  LEFT\nqa-000000  running  -\nlast\nand more\n", expected)


class Reader:
    """Somebody who does what the page says, in a folder of their own; `shown` is what they see, with the page's names for what is theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = DaemonProcess(folder).root  # its recorded grid and power
        self.daemon: subprocess.Popen[bytes] | None = None
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        more = {"CARBONSCHED_SOCKET": str(folder / "api.sock"), "COLUMNS": str(COLUMNS), "PATH": path}
        self.env = os.environ | OFFLINE | more

    def write(self, step: Step) -> None:
        path = self.folder / str(step.file)
        path.write_text(step.text, encoding="utf-8")
        if step.text.startswith("#!"):
            path.chmod(0o755)

    def shown(self, step: Step) -> str:
        command = step.command
        if command.endswith(" &"):
            self._start(command.removesuffix(" &"))
            return ""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        if self.daemon is not None and command.startswith("kill $("):
            self.daemon.wait(timeout=180)  # the page's shell is another one
        text = done.stdout.replace(str(self.folder), "/srv/box").replace(sys.prefix, "/opt/carbonsched")
        return re.sub(rf"\b{getpass.getuser()}\b", "ada", text)

    def _start(self, command: str) -> None:
        with (self.folder / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(command.split(), cwd=self.folder, env=self.env, stderr=log)
        deadline = time.monotonic() + 300
        while not (self.folder / "api.sock").exists() or self._silent():
            assert self.daemon.poll() is None, (self.folder / "daemon.log").read_text()
            assert time.monotonic() < deadline, "the daemon does not answer"
            time.sleep(0.1)

    def _silent(self) -> bool:
        asked = subprocess.run(["carbonsched", "ps"], env=self.env, capture_output=True, check=False)
        return asked.returncode != 0

    def leave(self) -> None:
        """End what runs still: its jobs, then the daemon."""
        if self.daemon is None or self.daemon.poll() is not None:
            return
        for ending in (
            f"carbonsched ps -q --filter state={state} | xargs -r carbonsched cancel"
            for state in ("queued", "paused", "waiting", "running")
        ):
            subprocess.run(["bash", "-c", ending], env=self.env, capture_output=True, check=False)
        deadline = time.monotonic() + 120
        while b"running" in self._listed() and time.monotonic() < deadline:
            time.sleep(0.5)
        self.daemon.terminate()
        self.daemon.wait(timeout=180)

    def _listed(self) -> bytes:
        return subprocess.run(["carbonsched", "ps"], env=self.env, capture_output=True, check=False).stdout


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    tiny_llama(tmp_path / "model")
    word_data(tmp_path / "data", train=64)
    yield reader
    reader.leave()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_prints_what_the_page_says(reader: Reader) -> None:
    for step in steps(TEXT):
        if step.file is not None:
            reader.write(step)
            continue
        printed = reader.shown(step)
        assert told_as(printed, step.text), "\n".join(
            [
                f"{step.task}: $ {step.command}",
                "printed:",
                printed,
                "made alike:",
                *alike(printed),
                "the page says:",
                *alike(step.text),
            ]
        )

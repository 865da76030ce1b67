"""The daemon's package on a Debian that boots, with a user who may submit and an environment that trains: what tests/system drives."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from support.machine import Machine, built_package, copy_of_clone, debian_tree, machine
from support.models import tiny_llama, tiny_spec, word_data

UNIT = "carbonsched.service"
CONFIG = "/etc/carbonsched/config.toml"
LIBRARIES = "/trainers-libraries"
"""In the machine: where those of this environment are shown."""
TRAINER = "/opt/carbonsched-trainer"


def trainers_libraries() -> list[str]:
    """Options that show the libraries of this environment to the trainer's, for the machine's Python is of the same version."""
    minor = "{}.{}".format(*sys.version_info)
    if not (debian_tree() / "usr/bin" / f"python{minor}").exists():
        pytest.skip(f"the machine's Python is not {minor}")
    found = find_spec("torch")
    assert found is not None
    assert found.origin is not None
    return [f"--bind-ro={Path(found.origin).parents[1]}:{LIBRARIES}"]


def give_a_job_to_alice(box: Machine, **parts: dict[str, Any]) -> None:
    """A user alice whose home has a model, data and `job.toml`. parts: of the job, beside a tiny one's."""
    box.run("useradd --create-home -K HOME_MODE=0755 --shell /bin/bash alice")
    home = box.root / "home/alice"
    model, data = tiny_llama(home / "model"), word_data(home / "data")
    text = tomli_w.dumps(tiny_spec(model, data, **parts)).replace(str(box.root), "")
    (home / "job.toml").write_text(text)
    box.run("chown -R alice: /home/alice && chmod -R a+rX /home/alice")


def install(box: Machine, package: Path) -> None:
    """The package alone; the daemon is not started."""
    (box.root / "var/tmp" / package.name).write_bytes(package.read_bytes())
    box.run(f"DEBIAN_FRONTEND=noninteractive apt-get install -y /var/tmp/{package.name}", timeout=400)


@contextmanager
def installed(name: str) -> Iterator[Machine]:
    """One where the daemon runs. Its trainer is the clone's, by an environment without pip: nothing is fetched."""
    package = built_package()
    with machine(name, *trainers_libraries()) as box:
        copy_of_clone(box.root)
        install(box, package)
        box.run(f"python3 -m venv --without-pip {TRAINER}")
        box.run(
            f"for each in {TRAINER}/lib/python3*/site-packages; do printf '/clone\\n{LIBRARIES}\\n' > $each/shared.pth; done"
        )
        box.run(f"systemctl enable --now {UNIT}", timeout=200)
        box.until("carbonsched ps", 120)
        yield box


def jobs(box: Machine) -> list[dict[str, Any]]:
    return json.loads(box.run("carbonsched ps --json").stdout)["jobs"]  # type: ignore[no-any-return]


def show(box: Machine, job: str) -> dict[str, Any]:
    return json.loads(box.run(f"carbonsched show {job} --json").stdout)  # type: ignore[no-any-return]


def books_are_whole(box: Machine) -> dict[str, Any]:
    """What `audit verify` says of them: every hash and gram, and each board's joules against its counter."""
    told = json.loads(box.run("carbonsched audit verify --json", timeout=300).stdout)
    assert told["ok"], told
    assert all(each["ok"] for each in told["conservation"]), told
    return told  # type: ignore[no-any-return]

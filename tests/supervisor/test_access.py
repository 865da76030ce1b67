"""Who may read a job: over a real socket, by real users."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.as_user import as_user
from support.box import serving
from support.rig import ME, Rig, spec

from carbonsched.cli.client import Client, RemoteError
from carbonsched.model.job import Owner

ALICE, BOB = 12345, 12346
HIDDEN = "/home/alice/unpublished"


@pytest.fixture
def folder() -> Iterator[Path]:
    """pytest's own temporary folders are closed to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def rig(folder: Path) -> Rig:
    return Rig(folder, extra={"pools": [{"name": "lab", "budget_g": 50.0}]})


def of_alice(rig: Rig, **carbon: Any) -> str:
    alice = Owner(uid=ALICE, gid=ALICE, pid=1, user="alice")
    asked = spec("alices-" + "x" * 40 + "-private", **carbon)
    asked = asked.model_copy(update={"labels": {"project": "private"}})
    job = rig.service.submit(asked, alice)
    rig.run(1)
    run = rig.supervisor.runs[job.id]
    rig.supervisor.move(run, run.state, f"{HIDDEN}/rows.jsonl is not JSON")
    return job.id


def asked(client: Client, job_id: str) -> dict[str, Callable[[], object]]:
    return {
        "show": lambda: client.show(job_id),
        "log": lambda: client.log(job_id, 0),
        "report": lambda: client.report(job_id, None, None, "json"),
        "model-card": lambda: client.report(job_id, None, None, "model-card"),
        "cancel": lambda: client.act(job_id, "cancel"),
        "pause": lambda: client.act(job_id, "pause"),
        "resume": lambda: client.act(job_id, "resume"),
        "budget": lambda: client.budget(job_id, 7.0),
    }


def refusals(client: Client, job_id: str) -> dict[str, str]:
    found = {}
    for name, ask in asked(client, job_id).items():
        try:
            ask()
        except RemoteError as e:
            if "only alice" in str(e):
                found[name] = str(e)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_every_door_to_a_job_is_its_owners(rig: Rig, folder: Path) -> None:
    job_id, socket = of_alice(rig), folder / "api.sock"
    with serving(rig.service, socket):
        socket.chmod(0o666)
        client = Client(socket)
        assert as_user(ALICE, lambda: refusals(client, job_id)) == {}
        refused = as_user(BOB, lambda: refusals(client, job_id))
        assert set(refused) == set(asked(client, job_id))
        assert all(str(BOB) in line and HIDDEN not in line for line in refused.values())
        assert "carbonsched ps shows everybody's" in refused["show"]
        everything = as_user(
            BOB,
            lambda: (
                client.jobs(True).model_dump_json()
                + client.pools().model_dump_json()
                + client.report(None, "2026-11-01T00:00:00Z", "2027-01-01T00:00:00Z", "csv")
                + client.report(None, "2026-11-01T00:00:00Z", "2027-01-01T00:00:00Z", "json")
            ),
        )
        assert job_id in everything
        assert not [word for word in (HIDDEN, "private", "rows.jsonl") if word in everything]


def test_of_other_peoples_jobs_ps_shows_what_the_box_is_shared_by(rig: Rig) -> None:
    job_id = of_alice(rig, budget_g=None, pool="lab")
    bob = Owner(uid=BOB, gid=BOB, pid=1, user="bob")
    (mine,), (theirs,) = rig.service.jobs(ME).jobs, rig.service.jobs(bob).jobs
    for name in ("id", "owner", "state", "boards", "spent_g", "budget_g", "energy_j", "pool", "submitted_at"):
        assert getattr(theirs, name) == getattr(mine, name), name
    assert (theirs.reason, theirs.rho, theirs.loss, theirs.step) == ("", None, None, None)
    assert HIDDEN in mine.reason
    assert (mine.labels, theirs.labels) == ({"project": "private"}, {})
    (pool,) = rig.service.pools(bob).pools
    assert [(job.id, job.reason) for job in pool.jobs] == [(job_id, "")]
    (pool,) = rig.service.pools(ME).pools
    assert HIDDEN in pool.jobs[0].reason


@pytest.mark.parametrize("admins", [("nobody",), ("@nogroup",), ("@no-such", "nobody")])
def test_admins_are_users_and_groups_and_may_change_on_reload(
    rig: Rig, admins: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    job_id = of_alice(rig)
    nobody = Owner(uid=65534, gid=65534, pid=1, user="nobody")
    assert rig.service.jobs(nobody).jobs[0].reason == ""
    api = rig.config.api.model_copy(update={"admins": admins})
    rig.supervisor.reconfigure(rig.config.model_copy(update={"api": api}))
    assert rig.service.show(job_id, nobody).id == job_id
    assert HIDDEN in rig.service.jobs(nobody).jobs[0].reason
    assert ("no group '@no-such'" in caplog.text) == ("@no-such" in admins)

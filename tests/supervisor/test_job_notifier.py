"""What is told of jobs that end, and of budgets that go too fast; by the real supervisor, to a real command."""

import json
from pathlib import Path

import pytest
from support.rig import Rig, spec

from carbonsched.errors import InputError
from carbonsched.model.notification import Happening, Notification
from carbonsched.notifications.sender import Senders


@pytest.fixture
def told(tmp_path: Path) -> tuple[Rig, list[Notification]]:
    rig, found = Rig(tmp_path), list[Notification]()
    rig.supervisor.notifier.send = found.append
    return rig, found


def test_each_end_is_told_once(told: tuple[Rig, list[Notification]]) -> None:
    rig, found = told
    job = rig.running()
    job.finish()
    other = rig.running()
    other.say("failed", error="no rows", step=0)
    rig.launcher.end(other.dir)
    rig.run(3)
    assert [(each.job, each.event) for each in found] == [
        (job.id, Happening.FINISHED),
        (other.id, Happening.FAILED),
    ]
    assert "no rows" in found[1].reason
    assert found[0].spent_g == pytest.approx(job.show().spent_g)


def test_a_budget_that_goes_too_fast_is_told_once_and_again_when_it_was_raised(
    told: tuple[Rig, list[Notification]],
) -> None:
    rig, found = told
    job = rig.running(spec(budget_g=1.0))  # 100 W at 400 g/kWh: 11 mg a second
    rig.run(30)
    assert found == []
    rig.run(30)
    assert [each.event for each in found] == [Happening.AT_RISK]
    assert found[0].reason.startswith("100% of the steps are left, ")
    rig.run(10)
    rig.supervisor.runs[job.id].grant(1.2)
    rig.run(10)
    assert [each.event for each in found] == [Happening.AT_RISK] * 2


def test_an_end_comes_to_the_sites_command(tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat > {tmp_path}/got.new && mv {tmp_path}/got.new {tmp_path}/got\n")
    hook.chmod(0o755)
    rig = Rig(tmp_path / "box", extra={"notify": [{"command": str(hook)}]})
    senders = Senders.of(rig.config.notify)
    rig.supervisor.notifier.send = senders.put
    job = rig.running()
    job.finish()
    senders.stop(30)
    assert json.loads((tmp_path / "got").read_text())["job"] == job.id


def test_a_job_may_ask_for_mail_where_submitters_are_mailed(tmp_path: Path) -> None:
    wish = spec().model_copy(update={"notify": (Happening.FAILED,)})
    with pytest.raises(InputError, match="notify: this box mails no submitters"):
        Rig(tmp_path / "a").submit(wish)
    rig, found = Rig(tmp_path / "b", extra={"notify": [{"mail": "owner", "on": []}]}), list[Notification]()
    rig.supervisor.notifier.send = found.append
    job = rig.running(wish)
    job.finish()
    assert [(each.event, each.asked) for each in found] == [(Happening.FINISHED, False)]

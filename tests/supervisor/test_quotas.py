"""Quotas: whose holds for whom, what counts, and every way to take more than there is."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.rig import Rig, spec

from carbonsched.errors import CarbonschedError, DeniedError, InputError
from carbonsched.model.command import RunRequest
from carbonsched.model.job import Owner
from carbonsched.supervisor.access import Caller
from carbonsched.supervisor.commands import Commands

ALICE, BOB = Owner(uid=12345, gid=12345, user="alice"), Owner(uid=12346, gid=12346, user="bob")
NOBODY = Owner(uid=65534, gid=65534, user="nobody")


def box(folder: Path, *quotas: dict[str, Any]) -> Rig:
    return Rig(folder, extra={"quotas": list(quotas), "pools": [{"name": "lab", "budget_g": 50.0}]})


def submit(rig: Rig, who: Owner, **carbon: Any) -> str:
    return rig.service.submit(spec(**carbon), who).id


def test_a_users_own_quota_before_the_groups_before_everybodys(tmp_path: Path) -> None:
    rig = box(tmp_path, {"who": "*", "jobs": 3}, {"who": "@nogroup", "jobs": 2}, {"who": "nobody", "jobs": 1})
    found = {who.user: rig.supervisor.quotas.of(who) for who in (ALICE, NOBODY)}
    assert {user: quota and quota.jobs for user, quota in found.items()} == {"alice": 3, "nobody": 1}
    in_group = Caller(uid=12347, gid=12347, user="eve", groups=(65534,))
    assert rig.supervisor.quotas.of(in_group).jobs == 2  # type: ignore[union-attr]
    assert box(tmp_path / "other", {"who": "@nogroup", "jobs": 0}).supervisor.quotas.of(ALICE) is None


def test_jobs_at_a_time_are_each_users_own(tmp_path: Path) -> None:
    rig = box(tmp_path, {"who": "*", "jobs": 1})
    first = submit(rig, ALICE)
    with pytest.raises(DeniedError, match="quota: alice may have 1 job at a time and has 1"):
        submit(rig, ALICE)
    submit(rig, BOB)
    rig.service.cancel(first, ALICE)
    submit(rig, ALICE)


@pytest.mark.parametrize("key", ["grams_per_day", "grams_per_month"])
def test_grams_count_from_submission_on_and_what_is_left_over_is_free_again(tmp_path: Path, key: str) -> None:
    rig = box(tmp_path, {"who": "*", key: 150.0})
    job = rig.running(spec(budget_g=100.0))
    rig.run(60)
    root = Owner(uid=0, gid=0, user="root")
    with pytest.raises(DeniedError, match=r"60 g more do not fit"):
        submit(rig, root, budget_g=60.0)
    job.finish()
    submit(rig, root, budget_g=60.0)
    with pytest.raises(DeniedError, match="90 g more do not fit"):
        submit(rig, root, budget_g=90.0)
    rig.clock.advance(timedelta(days=31).total_seconds())
    submit(rig, root, budget_g=90.0)  # the first is over, and spent in another month


def test_no_way_around_it(tmp_path: Path) -> None:
    rig = box(tmp_path, {"who": "*", "grams_per_month": 100.0, "jobs": 2})
    job = submit(rig, ALICE, budget_g=60.0)
    with pytest.raises(DeniedError, match="quota"):
        rig.service.budget(job, 120.0, ALICE)
    rig.service.budget(job, 90.0, ALICE)
    rig.service.budget(job, 50.0, ALICE)
    for asked in ({"budget_g": None, "budget_share": 0.5}, {"budget_g": None, "budget_rate_g_per_h": 1.0}):
        with pytest.raises(InputError, match=r"carbon.budget_g: is missing: alice has a quota"):
            submit(rig, ALICE, **asked)
    pooled = submit(rig, ALICE, budget_g=None, pool="lab")
    rig.service.pause(job, ALICE)
    rig.service.resume(job, ALICE)
    with pytest.raises(DeniedError, match="2 jobs at a time"):
        submit(rig, ALICE, budget_g=1.0)
    rig.service.cancel(pooled, ALICE)


def test_of_many_that_ask_at_once_no_more_are_taken_than_fit(tmp_path: Path) -> None:
    rig, taken = box(tmp_path, {"who": "*", "jobs": 3}), list[str]()

    def ask() -> None:
        try:
            taken.append(submit(rig, ALICE))
        except CarbonschedError:
            return

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 3


def command(rig: Rig, who: Owner, **fields: Any) -> str:
    asked = {
        "name": "make",
        "command": {"argv": ["make"]},
        "pid": 4242,
        "devices": ["replay-0"],
        "share": True,
    }
    return Commands(rig.supervisor).begin(RunRequest.parse(asked | fields), who).id


def test_a_command_is_asked_for_too(tmp_path: Path) -> None:
    rig = box(tmp_path, {"who": "*", "grams_per_day": 1.0, "jobs": 2})
    with pytest.raises(DeniedError, match="2 g more do not fit"):
        command(rig, ALICE, budget_g=2.0)
    first = command(rig, ALICE)  # without a budget what it spends is counted
    rig.run(120)
    assert 1.0 < rig.service.show(first, ALICE).spent_g < 1.5
    with pytest.raises(DeniedError, match=r"quota: alice may emit 1 g a day .*; nothing is left"):
        command(rig, ALICE)
    assert not [path for path in (tmp_path / "state" / "jobs").iterdir() if path.name != first]
    command(rig, BOB)
    command(rig, BOB)
    with pytest.raises(DeniedError, match="bob may have 2 jobs at a time and has 2"):
        command(rig, BOB)

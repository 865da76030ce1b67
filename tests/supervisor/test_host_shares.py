"""Whose a host's energy is: two jobs and what else runs on the box, their CPU time scripted, to the millijoule."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.manual_clock import ManualClock
from support.rig import Played, Rig, spec

from carbonsched.model.energy import EnergyDelta, EnergyMethod
from carbonsched.power.base import Device, Mark


@dataclass
class ScriptedHost:
    """A host's meter that tells what the test says."""

    clock: ManualClock
    idle_w: float | None = 40.0
    watts: float = 140.0
    told_mj: int = 0
    _last: Any = field(default=None)

    @property
    def devices(self) -> tuple[Device, ...]:
        return (Device("host", "host", "EPYC", watts_limit=200.0, idle_w=self.idle_w),)

    def resume(self, marks: dict[str, Mark]) -> None: ...
    def close(self) -> None: ...

    def read(self) -> tuple[EnergyDelta, ...]:
        now, before = self.clock.now(), self._last
        self._last = now
        if before is None:
            return ()
        energy_mj = round(self.watts * (now - before).total_seconds() * 1000)
        self.told_mj += energy_mj
        return (
            EnergyDelta(
                device="host",
                start=before,
                end=now,
                energy_mj=energy_mj,
                power_w=self.watts,
                method=EnergyMethod.ESTIMATED,
                counter_epoch="boot:0",
                meter="codecarbon:cpu_load,tdp=200W+ram=20W",
            ),
        )


class Box:
    """Two jobs on a host, whose CPU time and the box's go on by what the test says per second."""

    def __init__(self, root: Path, idle_w: float | None = 40.0, **power: Any) -> None:
        self.hosts: list[ScriptedHost] = []

        def meter(curve: Path, clock: ManualClock, index: int, name: str) -> ScriptedHost:
            self.hosts.append(ScriptedHost(clock, idle_w))
            return self.hosts[-1]

        extra = {
            "power": {"gpu": "replay", "host": "none", "replay_file": str(root / "watts.csv"), **power},
            "launch": {"slots": 2},
        }
        self.rig = Rig(root, boards=("host",), meters=meter, extra=extra)
        self.busy_s = 0.0
        self.rig.supervisor.cpu.box = lambda: self.busy_s

    @property
    def host(self) -> ScriptedHost:
        return self.hosts[-1]

    def jobs(self) -> tuple[Played, Played]:
        free = {"budget_g": 1e6}
        a, b = self.rig.submit(spec("a", **free)), self.rig.submit(spec("b", **free))
        self.rig.run(1)
        for job in (a, b):
            job.started()
            self.cpu(job)["7:1"] = 0.0
        self.rig.run(1)
        return a, b

    def cpu(self, job: Played) -> dict[str, float]:
        return self.rig.launcher.cpu.setdefault(job.dir, {})

    def run(self, seconds: int, *used: tuple[Played, float], others: float = 0.0) -> None:
        for _ in range(seconds):
            for job, rate in used:
                self.cpu(job)["7:1"] += rate
            self.busy_s += others + sum(rate for _, rate in used)
            self.rig.run(1)

    def joules(self) -> dict[str, float]:
        """By job; of the box itself under "box"."""
        self.rig.supervisor.flush()
        found: dict[str, float] = {}
        for row in self.rig.ledger.rows():
            name = row["job_id"].partition("-")[0] if row["job_id"] else "box"
            found[name] = found.get(name, 0.0) + row["energy_mj"] / 1000
        return found

    def more(self, before: dict[str, float]) -> dict[str, float]:
        return {name: joules - before.get(name, 0.0) for name, joules in self.joules().items()}

    def whole(self) -> None:
        """All that the meter told is in the ledger, once."""
        self.rig.supervisor.flush()
        assert sum(row["energy_mj"] for row in self.rig.ledger.rows()) == self.host.told_mj
        assert self.rig.ledger.verify().ok


def test_active_energy_goes_by_cpu_time_and_live_jobs_pay_the_idle_share(tmp_path: Path) -> None:
    box = Box(tmp_path)
    a, b = box.jobs()
    before = box.joules()
    box.run(20, (a, 0.6), (b, 0.0), others=0.4)
    # 40 W idle in two parts; of 100 W active the first job used six tenths, other processes the rest
    assert box.more(before) == {"a": 20 * 80.0, "b": 20 * 20.0, "box": 20 * 40.0}
    reasons = {row["reason"] for row in box.rig.ledger.rows(a.id)}
    assert "split by CPU time, the idle share shared by 2 jobs" in reasons
    assert a.show().power_w == pytest.approx(80.0)
    assert b.show().power_w == pytest.approx(20.0)
    box.whole()


def test_the_box_pays_its_idle_share_where_the_config_says_so(tmp_path: Path) -> None:
    box = Box(tmp_path, host_idle="box")
    a, b = box.jobs()
    before = box.joules()
    box.run(20, (a, 0.6), (b, 0.0), others=0.4)
    assert box.more(before) == {"a": 20 * 60.0, "b": 0.0, "box": 20 * 80.0}
    box.whole()


def test_a_job_whose_cpu_time_is_not_known_makes_the_parts_equal_as_they_say(tmp_path: Path) -> None:
    box = Box(tmp_path)
    a, b = box.jobs()
    before = box.joules()
    box.cpu(b).clear()
    box.run(20, (a, 0.9), others=0.1)
    assert box.more(before) == {"a": 20 * 70.0, "b": 20 * 70.0}
    assert list(box.rig.ledger.rows(a.id))[-1]["reason"] == "shared equally by 2 jobs"
    box.whole()


def test_what_a_host_draws_at_rest_is_the_least_that_was_seen_where_its_meter_has_no_model(
    tmp_path: Path,
) -> None:
    box = Box(tmp_path, idle_w=None)
    box.host.watts = 50.0
    a, b = box.jobs()
    box.host.watts = 150.0
    before = box.joules()
    box.run(10, (a, 1.0), (b, 0.0))
    assert box.more(before) == {"a": 10 * 125.0, "b": 10 * 25.0, "box": 0.0}
    box.whole()


def test_what_a_host_draws_at_rest_is_known_to_the_next_daemon(tmp_path: Path) -> None:
    box = Box(tmp_path, idle_w=None)
    box.host.watts = 50.0
    box.rig.run(15)
    box.host.watts = 150.0
    a, b = box.jobs()
    box.run(10, (a, 1.0), (b, 0.0))
    box.rig.die()
    box.rig.boot()
    box.rig.supervisor.cpu.box = lambda: box.busy_s
    box.host.watts = 150.0
    box.run(5, (a, 1.0), (b, 0.0))
    before = box.joules()
    box.run(10, (a, 1.0), (b, 0.0))
    assert box.more(before) == {"a": 10 * 125.0, "b": 10 * 25.0, "box": 0.0}


def test_a_job_that_ended_in_the_tick_pays_for_the_time_it_took_and_lived(tmp_path: Path) -> None:
    """Half a second at full speed, of which its shim tells the last part."""
    box = Box(tmp_path)
    a, b = box.jobs()
    box.run(5, (a, 0.5), (b, 0.5))
    before = box.joules()
    total = box.cpu(a).pop("7:1")
    box.cpu(a)["exit"] = total + 0.4
    box.cpu(b)["7:1"] += 0.6
    box.busy_s += 1.0
    box.rig.clock.advance(0.5)
    box.rig.launcher.end(a.dir)
    box.rig.clock.advance(0.5)
    box.rig.supervisor.tick()
    more = box.more(before)
    # while both live a runs at 0.8 and b at 0.6 of a second per second; after that b alone, its idle share whole
    first = {"a": 70 * 0.5 * (40 / 140 / 2 + 100 / 140 * 0.8 / 1.4) * 2}
    assert more["a"] == pytest.approx(first["a"], rel=0.01)
    assert sum(more.values()) == pytest.approx(140.0)
    box.whole()


@settings(deadline=None, max_examples=10)
@given(
    steps=st.lists(
        st.tuples(st.floats(0, 4), st.floats(0, 4), st.floats(0, 4), st.integers(0, 400)),
        min_size=1,
        max_size=12,
    ),
    rule=st.sampled_from(["jobs", "box"]),
    data=st.data(),
)
def test_no_millijoule_is_lost_or_made_whatever_runs(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[float, float, float, int]],
    rule: str,
    data: st.DataObject,
) -> None:
    box = Box(tmp_path_factory.mktemp("box"), host_idle=rule)
    a, b = box.jobs()
    for used_a, used_b, others, watts in steps:
        box.host.watts = float(watts)
        box.run(1, (a, used_a), (b, used_b), others=others)
        if data.draw(st.booleans()):
            a.ready(data.draw(st.integers(0, 3)))  # cuts the tick
    box.whole()
    box.rig.ledger.close()

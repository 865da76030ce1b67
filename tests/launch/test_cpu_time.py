"""CPU time of real processes: a tree whose children come and go, a cgroup's file, and a kernel without lists of children."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import ended, python, until

from carbonsched.launch import shim
from carbonsched.launch.cpu_time import CommandRoots, box_s, cgroup_s, tree_s
from carbonsched.launch.local import LocalLauncher
from carbonsched.launch.process_group import look_up
from carbonsched.model.job import Owner

ME = Owner(uid=os.getuid(), gid=os.getgid(), user="me")
BURN = """
import os, sys, time

def burn(seconds):
    while time.process_time() < seconds:
        pass

for n in range(3):
    if os.fork() == 0:
        burn(0.4)
        os._exit(0)
    os.wait()
burn(0.4)
open("burnt", "w").close()
time.sleep(60)
"""


@pytest.fixture
def burner(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(python(BURN), cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


def test_children_that_ended_count_once_and_the_sum_never_falls(
    tmp_path: Path, burner: "subprocess.Popen[bytes]"
) -> None:
    start, seen, misses = shim.start_time(burner.pid), [], 0
    while not (tmp_path / "burnt").exists():
        now = tree_s(burner.pid, start)
        assert now is not None
        misses += bool(seen and now < seen[-1] - 0.02)
        seen.append(now)
        time.sleep(0.01)
    total = tree_s(burner.pid, start)
    assert total == pytest.approx(4 * 0.4, abs=0.35), "three children and itself"
    assert misses <= 3, (
        "a child that is waited for between two reads of one look is missed by that look alone"
    )
    assert max(seen) <= total + 0.03, "nobody was counted twice on the way"


def test_a_process_that_is_gone_and_a_number_that_was_given_again_have_none(
    burner: "subprocess.Popen[bytes]",
) -> None:
    start = shim.start_time(burner.pid)
    assert tree_s(burner.pid, start + 1) is None
    burner.kill()
    until(lambda: shim.stat_fields(burner.pid)[0] == "Z")
    assert tree_s(burner.pid, start) is not None, "it is not waited for yet"
    burner.wait()
    assert tree_s(burner.pid, start) is None


def test_a_job_is_counted_with_its_children_and_to_its_very_end(
    launcher: LocalLauncher, job_dir: Path
) -> None:
    """Of the shim's tree while it runs; its last word stands in exit.json."""
    assert launcher.cpu_times(job_dir) == {}
    code = BURN.replace("time.sleep(60)", "time.sleep(1)")
    launcher.start(job_dir, [sys.executable, "-I", "-S", "-c", code], {}, ME)
    until(lambda: (job_dir / "burnt").exists(), 60)
    [(root, seconds)] = launcher.cpu_times(job_dir).items()
    assert root.startswith(f"{next(iter(launcher.pids(job_dir)))}:")
    assert 1.5 <= seconds <= 2.5
    until(lambda: ended(launcher, job_dir), 60)
    assert sum(launcher.cpu_times(job_dir).values()) == pytest.approx(1.65, abs=0.4)
    (job_dir / "run.json").unlink()  # as where init has waited for the shim
    [(word, at_end)] = launcher.cpu_times(job_dir).items()
    assert (word, at_end == pytest.approx(1.6, abs=0.35)) == ("exit", True)


def test_what_a_command_leaves_beside_it_counts_too(launcher: LocalLauncher, job_dir: Path) -> None:
    """It was started beneath `sh`, which ended: its parent is somebody else now, its mark is the command's."""
    argv = ("sh", "-c", f"{sys.executable} -c 'while True: pass' & sleep 1; exec sleep 60")
    env = os.environ | {"CARBONSCHED_RUN_DIR": str(job_dir.resolve())}
    outer = subprocess.Popen(
        ["sh", "-c", 'sh -c "$0" & sleep 2; exec sleep 60', argv[2]], env=env, start_new_session=True
    )
    try:
        launcher.adopt(
            job_dir, outer.pid, argv, Owner(uid=os.getuid(), gid=os.getgid(), user="me", pid=os.getpid())
        )
        until(lambda: sum(launcher.cpu_times(job_dir).values()) > 0.3, 60)
        assert len(launcher.cpu_times(job_dir)) == 1, "one root: the rest is beneath it"
    finally:
        os.killpg(outer.pid, signal.SIGKILL)
        outer.wait()


def test_processes_of_a_command_are_looked_for_now_and_then_not_at_every_tick() -> None:
    looked: list[int] = []
    own = look_up(os.getpid())
    assert own is not None

    def find() -> list[object]:
        looked.append(1)
        return [own]

    roots = CommandRoots(find)  # type: ignore[arg-type]
    assert [[root.pid for root in roots.now()] for _ in range(3)] == [[os.getpid()]] * 3
    assert len(looked) == 1


def test_a_cgroups_time_is_what_the_kernel_says_and_an_empty_one_says_nothing(tmp_path: Path) -> None:
    """A job that could not be put into its cgroup is not in it: its tree is asked then."""
    assert cgroup_s(None) is None
    assert cgroup_s(tmp_path / "none") is None
    stat = tmp_path / "cpu.stat"
    stat.write_text("usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n")
    assert cgroup_s(tmp_path) == pytest.approx(1.234567)
    stat.write_text("usage_usec 0\nuser_usec 0\nsystem_usec 0\n")
    assert cgroup_s(tmp_path) is None
    stat.write_text("user_usec 3\n")
    assert cgroup_s(tmp_path) is None


def test_the_jobs_own_cgroup_is_asked_first_and_the_daemons_never(
    launcher: LocalLauncher, job_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "cpu.stat").write_text("usage_usec 99000000\n")
    launcher._cgroup = tmp_path
    launcher.start(job_dir, ["sleep", "60"], {}, ME)
    assert all(word != "cgroup" for word in launcher.cpu_times(job_dir)), "all jobs are in the daemon's"
    (tmp_path / f"job-{job_dir.name}" / "cpu.stat").write_text("usage_usec 2500000\n")
    assert launcher.cpu_times(job_dir) == {"cgroup": 2.5}


def test_the_box_is_busy_by_more_than_one_process_was(
    burner: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    before = box_s()
    until(lambda: (tmp_path / "burnt").exists(), 60)
    after = box_s()
    assert before is not None
    assert after is not None
    assert after - before >= 0.3
    assert box_s(tmp_path) is None


@pytest.mark.parametrize("lists", [True, False])
def test_children_are_found_as_the_kernel_lists_them_or_without_its_lists(
    tmp_path: Path, lists: bool
) -> None:
    """A /proc of three generations, the second one's child started by its second thread."""
    for pid, parent, ticks in ((10, 1, 100), (11, 10, 200), (12, 11, 300), (13, 1, 9000)):
        folder = tmp_path / str(pid)
        fields = ["S", str(parent), *["0"] * 9, str(ticks), "0", "0", "0", *["0"] * 4, "77", *["0"] * 5]
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (a (b) c) {' '.join(fields)}\n")
        beneath = {10: {10: "11"}, 11: {11: "", 21: "12"}}.get(pid, {pid: ""})
        for thread, children in beneath.items():
            (folder / "task" / str(thread)).mkdir(parents=True)
            if lists:
                (folder / "task" / str(thread) / "children").write_text(children)
    assert tree_s(10, 77, tmp_path) == pytest.approx(600 / os.sysconf("SC_CLK_TCK"))
    assert tree_s(12, 77, tmp_path) == pytest.approx(300 / os.sysconf("SC_CLK_TCK"))

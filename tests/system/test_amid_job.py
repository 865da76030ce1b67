"""A job of a member's, whose daemon is killed, stopped and started, and whose box loses its power: it ends as it should, once.

A power cut is an attempt that failed: the job may have two, and goes on from its last checkpoint by itself.
"""

import json
import signal
import sys
from typing import Any

from support.installed import UNIT, books_are_whole, show
from support.machine import Machine

from carbonsched.launch.systemd import unit_of


def submit(box: Machine) -> str:
    said = box.run(
        'su - alice -c "carbonsched submit job.toml --set queue.max_attempts=2 --json"', timeout=300
    ).stdout
    return str(json.loads(said)["id"])


def after_segment(box: Machine, job: str, more: int = 1) -> dict[str, Any]:
    """The job once it has finished so many more."""
    wanted = len(show(box, job)["segments_done"]) + more
    code = f'import json,sys; d=json.load(sys.stdin); sys.exit(len(d["segments_done"]) < {wanted} and d["state"] != "failed")'
    box.until(f"carbonsched show {job} --json | python3 -c '{code}'", 240)
    return show(box, job)


def processes(box: Machine, job: str) -> set[str]:
    found = set(box.run(f"pgrep -f '[t]rainer run /var/lib/carbonsched/jobs/{job}'").stdout.split())
    assert found
    return found


def test_it_ends_as_it_should_whatever_falls_meanwhile(box: Machine) -> None:
    job = submit(box)
    before = after_segment(box, job)
    assert before["state"] == "running", before["reason"]
    running = processes(box, job)

    pid = box.show(UNIT, "MainPID")
    box.run(f"kill -{signal.SIGKILL.value} {pid}")
    box.until(
        f"test $(systemctl show -P MainPID {UNIT}) -gt 0 && test $(systemctl show -P MainPID {UNIT}) != {pid} && carbonsched ps",
        120,
    )
    assert processes(box, job) == running, "it ran on"

    box.run(f"systemctl stop {UNIT}")
    assert processes(box, job) == running, "it runs on within its lease"
    box.run(f"systemctl start {UNIT}")
    amid = after_segment(box, job)
    texts = [entry.get("text") for entry in amid["history"]]
    assert texts.count("adopted after a restart of the daemon") == 2, texts

    box.reboot()
    box.until("carbonsched ps", 120)
    box.run(f"carbonsched wait {job}", timeout=600)
    ended = show(box, job)
    assert ended["state"] == "finished", ended["reason"]
    done = ended["segments_done"]
    assert [segment["k"] for segment in done] == list(range(12)), "each segment once"
    assert sum(segment["steps"] for segment in done) == ended["step"] == ended["steps"], (
        "none lost, none done twice"
    )
    assert ended["energy_j"] > amid["energy_j"] > before["energy_j"] > 0
    assert sum(segment["energy_j"] for segment in done) <= ended["energy_j"] * (1 + 1e-9)
    box.run(f"test -s /var/lib/carbonsched/jobs/{job}/output/model.safetensors")
    assert box.run(f"systemctl is-active {unit_of(job)}", check=False).stdout.strip() == "inactive"
    told = books_are_whole(box)
    sys.stdout.write(
        f"{job}: {ended['energy_j']:.0f} J in {told['rows']} rows, {len(done)} segments, three falls\n"
    )
    check_removal(box, job)


def check_removal(box: Machine, job: str) -> None:
    """Its owner closed a folder to everybody, the daemon among them: who may remove the job still can, by the owner's rights."""
    folder = f"/var/lib/carbonsched/jobs/{job}"
    deep = f"{folder}/output/mine/deep"
    box.run(
        f"mkdir -p {deep} && head -c 100000 /dev/zero >{deep}/data && ln -s /home/alice {deep}/home",
        user="alice",
    )
    box.run(f"chmod 0700 {deep} && chmod 0000 {folder}/output/mine", user="alice")
    homes = box.run("stat -c %a /home/alice").stdout
    assert box.run(f"test -x {deep}", user="carbonsched", check=False).returncode == 1
    removed = json.loads(box.run(f"carbonsched rm {job} --json").stdout)
    assert removed["freed_bytes"] >= 100_000
    assert box.run(f"test -e {folder}", check=False).returncode == 1
    assert box.run("stat -c %a /home/alice").stdout == homes, "no link was followed"
    assert box.run(f"systemctl is-active {unit_of(job)}", check=False).stdout.strip() == "inactive"
    books_are_whole(box)

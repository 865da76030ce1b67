"""Real processes that run as another user than the launcher."""

import os
import signal
from pathlib import Path

import pytest
from support.processes import ended, gone, record, until

from carbonsched.launch.local import LocalLauncher
from carbonsched.model.job import Owner


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
class TestAsAnotherUser:
    NOBODY = Owner(uid=65534, gid=65534, user="nobody")

    def test_the_job_runs_as_its_owner_and_the_records_stay_ours(
        self, launcher: LocalLauncher, job_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SECRET_TOKEN", "s3cret")
        tuned = {
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
            "NCCL_P2P_DISABLE": "1",
            "TRITON_PTXAS_PATH": "/p",
        }
        written = {
            "TRITON_CACHE_DIR": "/root/t",
            "TORCHINDUCTOR_CACHE_DIR": "/root/i",
            "CUDA_CACHE_PATH": "/root/c",
            "TORCH_HOME": "/r",
        }
        for name, value in (tuned | written).items():
            monkeypatch.setenv(name, value)
        script = (
            "id -u; id -g; id -G; echo $HOME; env; echo hi >>events.jsonl; mkdir checkpoints/1 output/x;"
            "ln -s /etc/passwd control.json.tmp; rm -f run.json; mv log.txt x; exit 0"
        )
        launcher.start(job_dir, ["sh", "-c", script], {"ADDED": "1"}, self.NOBODY)
        until(lambda: ended(launcher, job_dir))
        log = (job_dir / "log.txt").read_text()
        assert log.splitlines()[1:4] == ["65534", "65534", "65534"]
        assert "s3cret" not in log
        assert {f"{name}={value}" for name, value in tuned.items()} <= set(log.splitlines())
        assert not [name for name in written if f"{name}=" in log], "places that the owner cannot write to"
        assert "ADDED=1" in log
        assert not (job_dir / "control.json.tmp").is_symlink()
        assert launcher.poll(job_dir).state == "exited"
        assert record(job_dir, "exit.json")["code"] == 0
        assert (job_dir / "events.jsonl").read_text() == "hi\n"
        assert (job_dir / "checkpoints" / "1").stat().st_uid == 65534
        assert (job_dir / "run.json").stat().st_uid == 0
        assert job_dir.stat().st_mode & 0o777 == 0o750

    def test_a_killed_shim_takes_the_owners_process_too(self, launcher: LocalLauncher, job_dir: Path) -> None:
        run = launcher.start(job_dir, ["sh", "-c", "trap '' TERM; echo $$; sleep 65"], {}, self.NOBODY)
        until(lambda: len((job_dir / "log.txt").read_text().splitlines()) > 1)
        trainer = int((job_dir / "log.txt").read_text().split()[-1])
        assert Path(f"/proc/{trainer}").stat().st_uid == 65534
        os.kill(run.pid, signal.SIGKILL)
        until(lambda: gone(trainer))
        assert launcher.poll(job_dir).state == "lost"

    def test_terminate_reaches_it(self, launcher: LocalLauncher, job_dir: Path) -> None:
        launcher.start(job_dir, ["sleep", "60"], {}, self.NOBODY)
        launcher.terminate(job_dir)
        until(lambda: ended(launcher, job_dir))
        assert record(job_dir, "exit.json")["signal"] == signal.SIGTERM

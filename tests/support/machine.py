"""A Debian that really boots: systemd as PID 1 in systemd-nspawn, over a tree that debootstrap makes once.

The tree is kept in ~/.cache; each machine works on an overlay of it, which lasts over its reboots and goes with it. It has no
network. What runs in it is ended with the one process that was started here.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import pytest

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "carbonsched-system"
TOOLS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "dpkg-deb": "dpkg",
    "nsenter": "util-linux",
}
BOOT_S = 60.0


def debian_tree(release: str = "bookworm") -> Path:
    """The tree, made where it is not there yet; skips the test, with the reason, where that cannot be."""
    if os.geteuid() != 0:
        pytest.skip("a machine that boots needs root")
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    for argv in (["install", "-y", *missing], ["update"], ["install", "-y", *missing]):
        if any(shutil.which(tool) is None for tool in TOOLS) and shutil.which("apt-get"):
            subprocess.run(["apt-get", *argv], capture_output=True, check=False, timeout=300)
    if any(shutil.which(tool) is None for tool in TOOLS):
        pytest.skip(f"{', '.join(missing)} cannot be installed here")
    return Path(_made([str(ROOT / "deploy/deb/tree"), release]))


def built_package(revision: int = 1, release: str = "bookworm") -> Path:
    """The package of this very tree of sources for a release, built where it is not there yet."""
    tree, digest = debian_tree(release), hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    kept = CACHE / "packages" / digest.hexdigest()[:16]
    if not (found := list(kept.glob(f"*-{revision}~{tree.name}_*.deb"))):
        for old in (CACHE / "packages").glob("*"):
            if old != kept:
                shutil.rmtree(old)
        kept.mkdir(parents=True, exist_ok=True)
        os.environ["DEB_COMPRESSION"] = "1"
        argv = [str(ROOT / "deploy/deb/build"), sys.executable, tree.name, str(revision)]
        found = [Path(shutil.move(ROOT / _made(argv), kept))]
    return found[0]


def copy_of_clone(root: Path) -> None:
    """What git knows, to /clone of a machine."""
    for path in _clone():
        target = root / "clone" / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _sources() -> list[Path]:
    return [
        path
        for path in _clone()
        if path.relative_to(ROOT).parts[0] not in ("tests", "docs", "benchmarks", "examples")
    ]


def _clone() -> list[Path]:
    listed = _made(["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"]).splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


def _made(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=550)
    if done.returncode:
        pytest.skip(f"{Path(argv[0]).name}: {' '.join(done.stderr.split())[-300:]}")
    return done.stdout.strip()


@dataclass
class Machine:
    """One that runs, until the context that made it ends."""

    root: Path
    argv: Sequence[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    shell: Sequence[str] = field(default=())

    def boot(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._wait()

    def reboot(self) -> None:
        """Without a word to anybody in it, as when the power fails."""
        assert self.process is not None
        self.off()
        self.boot()

    def off(self) -> None:
        if self.process is not None and self.process.poll() is None:
            for leader in self._children():
                os.kill(leader, 9)  # PID 1 of its namespace: all in it goes along
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def run(
        self,
        command: str,
        *,
        user: str = "root",
        check: bool = True,
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """A line of shell in the machine; fails the test where it fails."""
        lines = "".join(f"export {key}='{value}'\n" for key, value in (env or {}).items())
        done = subprocess.run(
            [
                *self.shell,
                "runuser",
                "-u",
                user,
                "--",
                "/bin/sh",
                "-c",
                f"cd /root 2>/dev/null || cd /\n{lines}{command}",
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "SYSTEMD_PAGER": "",
            },
        )
        if check and done.returncode:
            pytest.fail(f"$ {command}\n{done.stdout}{done.stderr}(exit code {done.returncode})")
        return done

    def show(self, unit: str, what: str) -> str:
        return self.run(f"systemctl show -P {what} {unit}").stdout.strip()

    def until(self, command: str, seconds: float = 30.0) -> str:
        """What it prints, as soon as it succeeds."""
        end = time.monotonic() + seconds
        while (done := self.run(command, check=False)).returncode:
            if time.monotonic() > end:
                journal = self.run("journalctl -b --no-pager -n 40", check=False).stdout
                pytest.fail(f"$ {command}\n{done.stdout}{done.stderr}not within {seconds:g} s\n{journal}")
            time.sleep(0.1)
        return done.stdout

    def _children(self) -> list[int]:
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in text.split()]

    def _wait(self) -> None:
        assert self.process is not None
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end and self.process.poll() is None:
            for leader in self._children():
                # the manager's own socket: it answers
                if Path(f"/proc/{leader}/root/run/systemd/private").exists():
                    self.shell = ("nsenter", "-t", str(leader), "-m", "-u", "-i", "-n", "-p", "-r", "-w")
                    state = self.run(
                        "systemctl is-system-running --wait", check=False, timeout=BOOT_S
                    ).stdout.strip()
                    if state in ("running", "degraded"):
                        return
            time.sleep(0.1)
        pytest.skip(f"systemd does not boot here: {self.log.read_text(errors='replace')[-1500:]}")


@contextmanager
def machine(name: str, *options: str, tree: Path | None = None) -> Iterator[Machine]:
    """A booted one; options: more of systemd-nspawn's, as `--bind-ro=FROM:TO`."""
    lower = tree or debian_tree()
    work = Path(mkdtemp(prefix=f"machine-{name}-", dir=CACHE))
    root = work / "root"
    folders = [option.rpartition(":")[2].lstrip("/") for option in options if option.startswith("--overlay=")]
    for each in ("root", "upper", "work", *(f"upper/{folder}" for folder in folders)):
        (work / each).mkdir(parents=True, exist_ok=True)
    overlay = f"lowerdir={lower},upperdir={work / 'upper'},workdir={work / 'work'}"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", overlay, str(root)], capture_output=True, check=False
    )
    if mounted.returncode:
        shutil.rmtree(work)
        pytest.skip(f"no overlay can be mounted here: {mounted.stderr.decode().strip()}")
    argv = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        f"--directory={root}",
        f"--machine={name}-{os.getpid()}",
        "--boot",
        "--link-journal=no",
        "--private-network",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        *options,
    ]
    box = Machine(root, argv, work / "console")
    try:
        box.boot()
        yield box
    finally:
        box.off()
        subprocess.run(["umount", "-l", str(root)], check=False)
        shutil.rmtree(work, ignore_errors=True)

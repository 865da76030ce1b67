"""`carbonsched install` and `uninstall`: install the files for systemd, the shells and man, and remove them again."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from carbonsched.cli.install_files import CONFIG, UNITS, Laid, files
from carbonsched.cli.options import Debug, Json, Socket
from carbonsched.errors import CarbonschedError, InputError

Systemd = Annotated[
    bool, typer.Option("--systemd", help="Units, user, udev rule, launcher, manual, completions.")
]
Prefix = Annotated[
    Path,
    typer.Option(
        "--prefix", metavar="DIR", help="Where the files go. Default: /usr/local.", show_default=False
    ),
]
Root = Annotated[
    Path | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="Lay the files down below DIR and change nothing that runs, for packages.",
    ),
]
_DEFAULT = Path("/usr/local")


def install(
    systemd: Systemd = False,
    prefix: Prefix = _DEFAULT,
    root: Root = None,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Install what the daemon needs as a service of this box, from the environment that this command runs in.

    Safe to repeat: existing files stay, files of an older version are updated, and the configuration is
    never overwritten. As root; `systemctl enable --now carbonsched` starts it.
    """
    environment = _checked(systemd, prefix, root)
    below = root or Path("/")
    changed: list[str] = []
    kept: list[str] = []
    for each in files(prefix, environment):
        (changed if _write(each, below) else kept).append(str(each.path))
    launcher = prefix / "bin/carbonsched"
    (changed if _link(below, launcher, environment / "bin/carbonsched") else kept).append(str(launcher))
    if root is None:
        _take_effect(prefix)
    shadows = [str(path) for path in _shadows(prefix, below)]
    _say(json, installed=changed, unchanged=kept, shadowed_by=shadows)


def uninstall(
    prefix: Prefix = _DEFAULT,
    purge: Annotated[
        bool, typer.Option("--purge", help="Take the configuration and the caches away, too.")
    ] = False,
    json: Json = False,
    socket: Socket = None,
    debug: Debug = False,
) -> None:
    """Stop the daemon, and remove the files of `install --systemd`. Ledger and jobs in /var/lib/carbonsched stay.

    Running jobs go on within their lease and then wait.
    """
    environment = _checked(True, prefix, None)
    if Path("/run/systemd/system").is_dir():
        _call(
            "systemctl",
            "disable",
            "--quiet",
            "--now",
            *(unit for unit in UNITS if (prefix / "lib/systemd/system" / unit).exists()),
        )
    removed = []
    launcher = prefix / "bin/carbonsched"
    for path in (*(each.path for each in files(prefix, environment) if purge or not each.edited), launcher):
        if path.is_symlink() or path.exists():
            path.unlink()
            removed.append(str(path))
    for folder in (
        prefix / "share/carbonsched",
        *((CONFIG.parent, Path("/var/cache/carbonsched")) if purge else ()),
    ):
        if folder.is_dir():
            shutil.rmtree(folder)
            removed.append(str(folder))
    if Path("/run/systemd/system").is_dir():
        _call("systemctl", "daemon-reload")
    _say(json, removed=removed)
    if not removed and not json:
        print(f"nothing of carbonsched is below {prefix}")


def _checked(systemd: bool, prefix: Path, root: Path | None) -> Path:
    """The environment of this command. Raises InputError if the daemon could not run from it, or this user may not write."""
    if not systemd:
        raise InputError("install", "there is one way to install", "give --systemd")
    if not prefix.is_absolute():
        raise InputError("--prefix", f"{prefix} is relative", "give a whole path, like /usr/local")
    if root is None and os.geteuid() != 0:
        raise InputError("install", "only root may change /etc and systemd's units", "run it with sudo")
    environment = Path(sys.prefix)
    if not (environment / "bin/carbonsched").exists():
        raise InputError(
            "install", f"{environment} has no bin/carbonsched", "install carbonsched into it with pip"
        )
    for folder in (environment, *environment.parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            problem = f"{environment} is where the daemon's user cannot read: {folder} is closed to others"
            raise InputError("install", problem, "make the environment in /opt, and run this from there")
    return environment


def _write(each: Laid, below: Path) -> bool:
    """Write one file; returns whether it changed."""
    path = below / each.path.relative_to("/")
    if path.exists() and (each.edited or path.read_text(encoding="utf-8") == each.text):
        return False
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(each.text, encoding="utf-8")
    new.chmod(each.mode)
    new.replace(path)
    return True


def _link(below: Path, launcher: Path, target: Path) -> bool:
    if launcher == target:  # the environment is at the prefix itself
        return False
    path = below / launcher.relative_to("/")
    if path.is_symlink() and path.readlink() == target:
        return False
    if path.exists() and not path.is_symlink():
        raise InputError("--prefix", f"{launcher} is there and not ours", "remove it, or give another prefix")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    return True


def _take_effect(prefix: Path) -> None:
    """Create the user and the folders, load the udev rule, and reload systemd's units."""
    _call("systemd-sysusers", str(prefix / "lib/sysusers.d/carbonsched.conf"))
    _call("systemd-tmpfiles", "--create", str(prefix / "lib/tmpfiles.d/carbonsched.conf"))
    shutil.chown(CONFIG, group="carbonsched")
    if Path("/run/systemd/system").is_dir():
        _call("systemctl", "daemon-reload")
    if shutil.which("udevadm") and Path("/run/udev/control").exists():
        # if this fails, as in a container, the rule applies from the next boot on
        subprocess.run(["udevadm", "control", "--reload"], check=False)
        subprocess.run(["udevadm", "trigger", "--action=add", "--subsystem-match=powercap"], check=False)


def _call(*argv: str) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError as e:
        raise InputError(
            "--systemd", f"{argv[0]} cannot be run: {e.strerror}", "this needs a box with systemd"
        ) from e
    if done.returncode:
        raise CarbonschedError(f"{' '.join(argv)}: {' '.join(done.stderr.split())}")


def _shadows(prefix: Path, below: Path) -> Iterator[Path]:
    """Units that systemd would use in place of the installed ones."""
    for folder in ("/etc/systemd/system", "/usr/local/lib/systemd/system"):
        if folder == str(prefix / "lib/systemd/system"):
            return
        for unit in UNITS:
            if (path := below / folder.lstrip("/") / unit).exists():
                yield path


def _say(json: bool, **lists: list[str]) -> None:
    from carbonsched.cli.output import emit
    from carbonsched.model.checks import Installation

    if json:
        emit(Installation(**{key: tuple(value) for key, value in lists.items()}))
        return
    for what, paths in lists.items():
        for path in paths:
            print(f"{what.replace('_', ' '):<12} {path}")
    if lists.get("shadowed_by"):
        print(
            "systemd takes these in place of what was installed: remove them, then systemctl daemon-reload",
            file=sys.stderr,
        )

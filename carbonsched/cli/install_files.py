"""The files of an installation under systemd, and their places.

A package of the distribution has the prefix /usr, `carbonsched install --systemd` has /usr/local: systemd, udev, man and the shells search
both. Files that people edit are below /etc and are never overwritten.
"""

import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carbonsched.errors import InputError

WRITTEN_FOR = "/opt/carbonsched"
"""The environment that the files in deploy/ name; the installation replaces it by its own."""
CONFIG = Path("/etc/carbonsched/config.toml")
UNITS = ("carbonsched.service", "carbonsched-clocks.service")
"""Units that are started and stopped; the jobs' template and slice are started and stopped with the jobs."""
JOBS = ("carbonsched-job@.service", "carbonsched.slice")


@dataclass(frozen=True, slots=True)
class Laid:
    """One file of the installation.

    Example:
        >>> Laid(Path("/usr/lib/sysusers.d/carbonsched.conf"), "g carbonsched-rapl -").mode
        420
    """

    path: Path
    text: str
    mode: int = 0o644
    edited: bool = False
    """Whether people edit it: an existing file then stays, also at `uninstall`."""


def sources() -> Path:
    """The folder of units and similar files: of the installed package, or of the clone that this runs from.

    Raises InputError if it is neither.
    """
    here = Path(__file__).parents[2] / "deploy"
    for folder in (Path(sysconfig.get_path("data")) / "share/carbonsched/deploy", here):
        if (folder / UNITS[0]).is_file():
            return folder
    raise InputError(
        "--systemd",
        f"this environment ({sys.prefix}) lacks the units",
        "install carbonsched into it with pip",
    )


def files(prefix: Path, environment: Path) -> Iterator[Laid]:
    """All files except the launcher, which is a link. environment: that of the daemon's interpreter."""
    from carbonsched.cli import completions, manual

    folder = sources()

    def read(name: str) -> str:
        return (
            (folder / name).read_text(encoding="utf-8").replace(WRITTEN_FOR + "/bin/", f"{environment}/bin/")
        )

    for unit in (*UNITS, *JOBS):
        yield Laid(prefix / "lib/systemd/system" / unit, read(unit))
    # polkit searches below /usr/share and /etc
    rules = Path("/usr/share" if prefix == Path("/usr") else "/etc") / "polkit-1/rules.d/50-carbonsched.rules"
    yield Laid(rules, read("polkit/50-carbonsched.rules"))
    yield Laid(prefix / "lib/sysusers.d/carbonsched.conf", read("sysusers.d/carbonsched.conf"))
    yield Laid(prefix / "lib/tmpfiles.d/carbonsched.conf", read("tmpfiles.d/carbonsched.conf"))
    yield Laid(prefix / "lib/udev/rules.d/70-carbonsched-rapl.rules", read("udev/70-carbonsched-rapl.rules"))
    for name in ("as-owner.conf", "prometheus/prometheus.yml", "prometheus/carbonsched.rules.yml"):
        yield Laid(prefix / "share/carbonsched" / name, read(name))
    yield Laid(CONFIG, read("config.toml"), 0o640, edited=True)
    yield Laid(Path("/etc/profile.d/carbonsched.sh"), read("profile.d/carbonsched.sh"), edited=True)
    share = prefix / "share"
    yield Laid(share / "man/man1/carbonsched.1", manual.page())
    yield Laid(share / "bash-completion/completions/carbonsched", completions.bash())
    zsh = "vendor-completions" if prefix == Path("/usr") else "site-functions"
    yield Laid(share / "zsh" / zsh / "_carbonsched", completions.zsh())
    yield Laid(share / "fish/vendor_completions.d/carbonsched.fish", completions.fish())

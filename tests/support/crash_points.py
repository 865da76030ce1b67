"""Kills a process that writes a ledger at each of its fsyncs, before it and after it, and looks at what the next one finds.

    LD_PRELOAD=crash.so python crash_points.py FOLDER     prints how many points there were

Every point is a fork of this process, so that Python starts once. The library counts, and ends the process by SIGKILL.
"""

import ctypes
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

from support.job_history import T0, interval, submitted

from carbonsched.ledger import Ledger
from carbonsched.ledger.archives import Archive
from carbonsched.ledger.rollup import Retention, RollUp

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>
static int armed, left, seen;
void crash_after(int n) { armed = 1; left = n; seen = 0; }
int crash_seen(void) { return seen; }
static void point(void) { if (armed) { ++seen; if (left > 0 && --left == 0) kill(getpid(), SIGKILL); } }
#define WRAP(name) \
int name(int fd) { static int (*real)(int); if (!real) real = dlsym(RTLD_NEXT, #name); \
    point(); int result = real(fd); point(); return result; }
WRAP(fsync)
WRAP(fdatasync)
"""
AT = T0 + timedelta(days=40)
ROWS = 36


def work(folder: Path, acknowledge: int) -> None:
    """What a daemon does: rows, entries, a roll-up with its archive, and an end in order."""
    with Ledger.open(url(folder)) as ledger:
        for n in range(ROWS, ROWS + 3):
            with ledger.transaction():
                ledger.append([interval(T0 + timedelta(seconds=10 * n), 10, 5, job_id="j", counter=5 * n)])
                ledger.set_offset("j", n + 1)
            os.write(acknowledge, b".")
        rolling(ledger, folder).work(AT)


def rolling(ledger: Ledger, folder: Path) -> RollUp:
    return RollUp(ledger, Retention(rows=20), Archive(folder / "archive"))


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


def crashed(folder: Path, point: int, library: ctypes.CDLL) -> tuple[int, int, bool]:
    """(transactions that were acknowledged, points that were passed, whether it was killed)."""
    ends, told = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        library.crash_after(point)
        work(folder, ends[1])
        os.write(told[1], str(library.crash_seen()).encode())
        os._exit(0)
    os.close(ends[1])
    os.close(told[1])
    _, status = os.waitpid(child, 0)
    with os.fdopen(ends[0], "rb") as acknowledged, os.fdopen(told[0], "rb") as passed:
        return len(acknowledged.read()), int(passed.read() or 0), os.WIFSIGNALED(status)


def look(folder: Path, acknowledged: int, point: int) -> None:
    with Ledger.open(url(folder)) as ledger:
        rows, offset = ledger.totals("j").rows, ledger.offset("j")
        result = ledger.verify()
        assert result.ok, (point, result.problem)
        assert rows == offset >= ROWS + acknowledged, (point, rows, offset, acknowledged)
        assert ledger.totals("j").energy_mj == 5 * rows, point
        rolling(ledger, folder).work(AT)
        result = ledger.verify()
        assert result.ok, (point, result.problem)
    archive = Archive(folder / "archive")
    kept = [text for path in sorted(archive.folder.iterdir()) for _, text in archive.lines(path.name)]
    assert len(kept) == len(set(kept)) == rows - 1, (point, len(kept), rows)


def main(folder: Path) -> None:
    library = ctypes.CDLL(None)
    template = folder / "template"
    template.mkdir()
    with Ledger.open(url(template)) as ledger:
        ledger.add_job(submitted("j"))
        rows = [
            interval(T0 + timedelta(seconds=10 * n), 10, 5, job_id="j", counter=5 * n) for n in range(ROWS)
        ]
        ledger.append(rows)
        ledger.set_offset("j", ROWS)
    points, killed, point = 1, 0, 0
    while point < points:
        here = folder / str(point)
        shutil.copytree(template, here)
        acknowledged, passed, died = crashed(here, point, library)
        points = max(points, passed + 1)
        assert died == (point > 0), point
        killed += died
        look(here, acknowledged, point)
        shutil.rmtree(here)
        point += 1
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""10,000 s of eight boards and twenty jobs, drawn from a seed, in which the daemon dies 50 times, the driver is reloaded three times,
two boards are lost, meters go blind five times and twenty reads are wild; then what the ledger says against what was true.

    python -m support.fault_injection SEED FOLDER [--kill] [--deaths 10]

It prints what it found wrong, one line each, and a summary. With --kill the daemon is a process of its own.
"""

import argparse
import json
import random
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from support.scripted_box import EPOCH, Apart, Daemon, Here, World, answers, config, say

from carbonsched.ledger.ledger import Ledger
from carbonsched.model import files
from carbonsched.model.protocol import VERSION, ExitRecord, RunRecord

BOARDS: Final = 8
JOBS: Final = 20
SECONDS: Final = 10_000
KILLS, RELOADS, LOST, BLIND, WILD = 50, 3, 2, 5, 20
BEGAN: Final = timedelta(days=20_000)
US: Final = 1_000_000
ROW_S: Final = 10
WAYS: Final = ("year", "zero", "ones", "lower", "any", "power")
AT_END: Final = 6
"""Wild reads that come when a job has just ended."""
YEAR_MJ: Final = 2190 * 3_600_000_000


def uuid(board: int) -> str:
    return f"GPU-00000000-fake-0000-0000-{board:012d}"


@dataclass(slots=True)
class Board:
    """What is true of a board: its counter, which of its lives that is, and what it draws."""

    mj: float
    life: int = 0
    busy: bool = False
    watts: float = 60.0
    code: int = 0


@dataclass(slots=True)
class Job:
    """A job that is played: it runs for so long from its start on, and ends so."""

    submit_s: float
    lasts_s: float
    code: int | None
    id: str = ""
    board: int | None = None
    began: int | None = None
    """Microseconds on the wall."""
    ended: int | None = None


@dataclass(slots=True)
class Plan:
    """When what happens, in seconds from the beginning; drawn before anything runs."""

    rng: random.Random
    deaths: int = KILLS
    """Of the daemon; fewer are some of the many."""
    kills: list[tuple[float, float]] = field(default_factory=list)
    """(when, how long nobody is there)."""
    reloads: list[tuple[float, str, float]] = field(default_factory=list)
    """(when, whether errors are `seen` for so long, or it is done `between` two reads or while the daemon is `away`)."""
    blind: list[tuple[float, float, tuple[int, ...], int]] = field(default_factory=list)
    """(from, to, boards, code)."""
    lost: list[tuple[float, float | None, int]] = field(default_factory=list)
    """(from, when it is back with a counter that begins anew, board)."""
    wild: list[tuple[float, int, str]] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.kills = sorted(
            (rng.uniform(20, SECONDS - 20), rng.choice((0.0, 2.0, 30.0, rng.uniform(1, 120))))
            for _ in range(KILLS)
        )[:: KILLS // self.deaths]
        kinds = ("seen", "between", "away")
        self.reloads = [
            (rng.uniform(1500 + 2500 * n, 3000 + 2500 * n), kinds[n], rng.uniform(5, 90))
            for n in range(RELOADS)
        ]
        for _ in range(BLIND):
            begins = rng.uniform(50, SECONDS - 900)
            boards = tuple(range(BOARDS)) if rng.random() < 0.4 else tuple(rng.sample(range(BOARDS), 3))
            self.blind.append(
                (
                    begins,
                    begins + rng.choice((1.0, 15.0, rng.uniform(10, 600))),
                    boards,
                    rng.choice((10, 999)),
                )
            )
        away = sorted(rng.sample(range(BOARDS), LOST))
        begins = rng.uniform(500, 6000)
        self.lost = [
            (begins, begins + rng.uniform(60, 1500), away[0]),
            (rng.uniform(4000, 9500), None, away[1]),
        ]
        self.wild = sorted(
            (rng.uniform(10, SECONDS - 10), rng.randrange(BOARDS), rng.choice(WAYS)) for _ in range(WILD)
        )
        self.jobs = [
            Job(
                rng.uniform(0, SECONDS * 0.8),
                rng.choice((8.0, rng.uniform(20, 300), rng.uniform(300, 4000))),
                rng.choice((0, 0, 0, 1, None)),
            )
            for _ in range(JOBS)
        ]

    def moments(self) -> list[float]:
        """When something happens, ascending: ticks are a second apart around there, five elsewhere."""
        found = [at for at, _ in self.kills] + [at for at, *_ in self.wild]
        found += [at for at, _, _ in self.reloads] + [at + s for at, _, s in self.reloads]
        found += [at for each in self.blind for at in each[:2]]
        found += [at for begins, back, _ in self.lost for at in (begins, back) if at is not None]
        return sorted(found + [job.submit_s for job in self.jobs])


@dataclass(slots=True)
class FaultSeries:
    """Plays a plan against a daemon, and keeps what was true."""

    folder: Path
    plan: Plan
    apart: bool
    at: float = 0.0
    boards: list[Board] = field(default_factory=list)
    lives: dict[tuple[int, int], int] = field(default_factory=dict)
    """(microseconds, board) → which life of its counter a true read was of; a read that is not here was wild, or none."""
    deaths: list[int] = field(default_factory=list)
    driver_code: int = 0
    world: World = field(init=False)
    moments: list[float] = field(init=False)
    todo: list[tuple[float, str, Any]] = field(init=False)
    wild: dict[int, str] = field(default_factory=dict)
    at_end: int = AT_END

    def __post_init__(self) -> None:
        self.world = World(self.folder)
        rng = self.plan.rng
        self.boards = [Board(rng.uniform(3e8, 9e8)) for _ in range(BOARDS)]
        self.moments = self.plan.moments()
        self.todo = sorted(self._events(), key=lambda each: each[0])

    def wall_us(self, at: float | None = None) -> int:
        return BEGAN // timedelta(microseconds=1) + round((self.at if at is None else at) * US)

    def time(self, at: float) -> datetime:
        return EPOCH + timedelta(microseconds=self.wall_us(at))

    def _events(self) -> Iterator[tuple[float, str, Any]]:
        plan = self.plan
        for at, how, seconds in plan.reloads:
            if how == "seen":
                yield at, "driver", 9
                yield at + seconds, "reload", None
            elif how == "between":
                yield at, "reload", None
            else:
                yield at, "away", seconds
        for begins, ends, boards, code in plan.blind:
            yield begins, "code", (boards, code)
            yield ends, "code", (boards, 0)
        for begins, back, board in plan.lost:
            yield begins, "lost", board
            if back is not None:
                yield back, "back", board
        for at, board, how in plan.wild:
            yield at, "wild", (board, how)
        for at, seconds in plan.kills:
            yield at, "kill", seconds
        for n, job in enumerate(plan.jobs):
            yield job.submit_s, "submit", n

    # ---- what is true

    def _advance(self, to: float) -> None:
        """Boards draw, jobs end at their time."""
        ends = sorted(
            {
                (job.began - self.wall_us(0)) / US + job.lasts_s
                for job in self.plan.jobs
                if job.began is not None and job.ended is None
            }
        )
        for stop in [*(end for end in ends if self.at < end <= to), to]:
            for board in self.boards:
                board.mj += board.watts * (stop - self.at) * 1000
            self.at = stop
            self._play()
        for board in self.boards:
            board.watts = self.plan.rng.uniform(250, 420) if board.busy else self.plan.rng.uniform(55, 75)

    def _play(self) -> None:
        for job in self.plan.jobs:
            if not job.id or job.ended is not None:
                continue
            folder = self.folder / "state" / "jobs" / job.id
            if job.began is None:
                if (run := files.load(folder / "run.json", RunRecord)) is None:
                    continue
                job.began = (run.started_at - EPOCH) // timedelta(microseconds=1)
                job.board = int((folder / "board").read_text()[-3:] or -1)
                told = {
                    "pid": 1,
                    "segments": 1,
                    "steps": 10,
                    "first_step": 0,
                    "params": 9,
                    "device": "cuda:0",
                }
                say(
                    folder,
                    self.time(self.at),
                    "started",
                    protocol=VERSION,
                    gpu_uuid=None if job.board < 0 else uuid(job.board),
                    **told,
                )
            assert job.board is not None
            # without a driver at its start it has no board
            board = self.boards[job.board] if job.board >= 0 else Board(0.0)
            board.busy = True
            if self.wall_us() >= job.began + round(job.lasts_s * US) - 1:
                job.ended = self.wall_us()
                board.busy = False
                if self.at_end and job.board >= 0 and self.plan.rng.random() < 0.5:
                    self.wild[job.board], self.at_end = self.plan.rng.choice(WAYS), self.at_end - 1
                if job.code == 0:
                    say(folder, self.time(self.at), "finished", step=10, reason="done")
                signal = 9 if job.code is None else None
                files.save(
                    folder / "exit.json", ExitRecord(code=job.code, signal=signal, at=self.time(self.at))
                )

    def _happen(self, daemon: Daemon, what: str, detail: Any) -> Daemon:
        match what:
            case "driver":
                self.driver_code = detail
            case "reload":
                self.driver_code = 0
                for board in self.boards:
                    board.mj, board.life = 0.0, board.life + 1
            case "code":
                for n in detail[0]:
                    if self.boards[n].code != 15:
                        self.boards[n].code = detail[1]
            case "lost":
                self.boards[detail].code = 15
            case "back":
                board = self.boards[detail]
                board.code, board.mj, board.life = 0, 0.0, board.life + 1
            case "wild":
                self.wild[detail[0]] = detail[1]
            case "submit":
                self.plan.jobs[detail].id = daemon.submit(f"job{detail}")
            case "away":
                return self._die(daemon, detail, reload=True)
            case "kill":
                return self._die(daemon, detail)
        return daemon

    def _die(self, daemon: Daemon, seconds: float, *, reload: bool = False) -> Daemon:
        self._tell(self.at + 0.5)
        if isinstance(daemon, Apart):
            daemon.die(self.plan.rng.uniform(0, 0.012))
        else:
            daemon.die()
        self.deaths.append(self.wall_us())
        self._advance(self.at + seconds / 2)
        if reload:
            self._happen(daemon, "reload", None)
        self._tell(self.at + seconds / 2 + 0.001)
        return self._boot()

    def _boot(self) -> Daemon:
        return Apart(self.folder) if self.apart else Here(self.folder)

    def _tell(self, at: float) -> None:
        """Go on to a time, and say what every board answers from then on."""
        self._advance(at)
        self.world.set_clocks(self.wall_us(), round(self.at * US) + 5_000 * US, self.driver_code)
        for n, board in enumerate(self.boards):
            mj, milliwatts = int(board.mj), round(board.watts * 1000)
            how = self.wild.pop(n, None)
            if how == "power":
                milliwatts, how = 0xFFFFFFFF, None
            if how is not None:
                mj = self._wild(how, mj)
            else:
                self.lives[self.wall_us(), n] = board.life
            self.world.set_board(n, mj, milliwatts, board.code)

    def _wild(self, how: str, mj: int) -> int:
        rng = self.plan.rng
        match how:
            case "year":
                return mj + YEAR_MJ
            case "zero":
                return 0
            case "ones":
                return 2**64 - 1
            case "lower":
                # beyond what is used while nobody is there: what a board can have counted since is believed
                return max(mj - rng.randrange(300_000_000, 900_000_000), 0)
        return rng.randrange(2**63)

    def play(self) -> None:
        """To the end, when the daemon is stopped in order."""
        self._tell(0.0)
        daemon = self._boot()
        while self.at < SECONDS:
            near = bisect_left(self.moments, self.at - 6)
            dense = near < len(self.moments) and self.moments[near] < self.at + 6
            self._tell(self.at + (self.plan.rng.uniform(0.9, 1.1) if dense else 5.0))
            daemon.tick()
            while self.todo and self.todo[0][0] <= self.at:
                _, what, detail = self.todo.pop(0)
                daemon = self._happen(daemon, what, detail)
        self._tell(self.at + 1)
        daemon.stop()


# ---- what the ledger says


@dataclass(slots=True)
class Judge:
    """Holds the ledger of a finished series against what was true."""

    series: FaultSeries
    rows: list[dict[str, Any]]
    wrong: list[str] = field(default_factory=list)
    unknown_s: float = 0.0
    epochs: int = 0

    def judge(self) -> None:
        replaced = {row["replaces"] for row in self.rows}
        told = answers(self.series.folder)
        for n in range(BOARDS):
            mine = [row for row in self.rows if row["board"] == uuid(n) and row["id"] not in replaced]
            mine.sort(key=lambda row: (row["start_us"], row["end_us"]))
            reads = [(at, mj) for at, mj, board, code in told if board == n and code == 0]
            self._time(n, mine)
            self._owners(n, mine)
            self._energy(n, mine, reads)

    def _say(self, board: int, text: str) -> None:
        self.wrong.append(f"board {board}: {text}")

    def _time(self, n: int, rows: Sequence[dict[str, Any]]) -> None:
        """Every second has one row, and where no energy is known, or not by the counter, the row says why."""
        for a, b in pairwise(rows):
            if abs(b["start_us"] - a["end_us"]) > 1000:
                self._say(n, f"rows {a['id']} and {b['id']} lie {(b['start_us'] - a['end_us']) / US} s apart")
        if rows and rows[-1]["end_us"] < self.series.wall_us() - 2 * US:
            self._say(n, f"its rows end {(self.series.wall_us() - rows[-1]['end_us']) / US} s too early")
        for row in rows:
            if row["energy_mj"] is None:
                self.unknown_s += (row["end_us"] - row["start_us"]) / US
            if row["counter_start_mj"] is None and not row["reason"]:
                self._say(n, f"row {row['id']} is not by the counter, and does not say why")

    def _owners(self, n: int, rows: Sequence[dict[str, Any]]) -> None:
        """Each row is of who had the board at that time, a millisecond apart where two clocks are read."""
        jobs = [job for job in self.series.plan.jobs if job.board == n]
        for row in rows:
            middle = [row["start_us"] + 1000, row["end_us"] - 1000]
            here = {
                job.id
                for job in jobs
                if job.began is not None
                and job.began < middle[1]
                and (job.ended is None or job.ended > middle[0])
            }
            if middle[1] > middle[0] and here != ({row["job_id"]} if row["job_id"] else set()):
                seconds = (row["end_us"] - row["start_us"]) / US
                self._say(
                    n,
                    f"row {row['id']} of {seconds} s is charged to {row['job_id']}, it was {here or 'nobody'}'s",
                )

    def _energy(self, n: int, rows: Sequence[dict[str, Any]], reads: Sequence[tuple[int, int]]) -> None:
        """Per life of the counter: all rows together are its last less its first read that the next one bears out."""
        truth = [(at, mj, self.series.lives[at, n]) for at, mj in reads if (at, n) in self.series.lives]
        counted = [row for row in rows if row["counter_start_mj"] is not None]
        epochs: dict[str, list[dict[str, Any]]] = {}
        for row in counted:
            epochs.setdefault(row["counter_epoch"], []).append(row)
        self.epochs += len(epochs)
        charged: dict[int, int] = {}
        values = {mj: life for _, mj, life in truth}
        for name, mine in epochs.items():
            first = min(row["counter_start_mj"] for row in mine)
            last = max(row["counter_end_mj"] for row in mine)
            energy = sum(row["energy_mj"] for row in mine)
            if first not in values or last not in values:
                self._say(n, f"epoch {name} goes from {first} to {last} mJ, and no true read was so")
                continue
            if values[first] != values[last]:
                self._say(n, f"epoch {name} spans two lives of the counter")
            if energy != last - first:
                self._say(n, f"epoch {name} is charged {energy} mJ, the counter moved by {last - first} mJ")
            charged[values[last]] = charged.get(values[last], 0) + energy
        for life in sorted({life for *_, life in truth}):
            self._life(
                n, life, [(at, mj) for at, mj, each in truth if each == life], reads, charged.get(life, 0)
            )

    def _life(
        self,
        n: int,
        life: int,
        mine: Sequence[tuple[int, int]],
        reads: Sequence[tuple[int, int]],
        charged: int,
    ) -> None:
        deaths, every = self.series.deaths, [at for at, _ in reads]

        def died(start: int, end: int) -> bool:
            return any(start <= at <= end for at in deaths)

        # confirmed at the latest by the second of two true reads that follow each other in one life of the daemon, which
        # lasted until that was written
        known = {at for at, _ in mine}
        confirmed = next(
            (
                i + 1
                for i, ((a, _), (b, _)) in enumerate(pairwise(mine))
                if every[every.index(a) + 1] in known and not died(a, b + (ROW_S + 6) * US)
            ),
            None,
        )
        if confirmed is None:
            return
        # what was not written when the daemon was killed is lost where the counter then is
        written = len(mine) - 1
        while written > confirmed and died(mine[written][0], mine[written][0] + (ROW_S + 6) * US):
            written -= 1
        last, least_last = mine[-1][1], mine[written][1]
        most, least = last - mine[0][1], least_last - mine[confirmed][1]
        if not least <= charged <= most:
            self._say(n, f"life {life}: {charged} mJ are charged, the counter moved by {least} to {most} mJ")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--deaths", type=int, choices=(10, KILLS), default=KILLS)
    options = parser.parse_args(argv)
    series = FaultSeries(options.folder, Plan(random.Random(options.seed), options.deaths), options.kill)
    series.play()
    with Ledger.open(config(options.folder).ledger_url) as ledger:
        found = ledger.verify()
        judge = Judge(series, [dict(row) for row in ledger.rows()])
    judge.judge()
    if not found.ok:
        judge.wrong.append(f"audit verify: {found.problem}")
    started = [job for job in series.plan.jobs if job.began is not None]
    summary = {
        "seed": options.seed,
        "rows": len(judge.rows),
        "epochs": judge.epochs,
        "jobs": len(started),
        "ended": sum(job.ended is not None for job in started),
        "deaths": len(series.deaths),
        "unknown_s": round(judge.unknown_s),
        "asked": sum((options.folder / "state" / "jobs" / job.id / "asked").exists() for job in started),
        "wrong": judge.wrong,
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if judge.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

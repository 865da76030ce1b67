"""Recomputes what each job of an export saved, by waste, FLOPs, clocks and hours: `python3 effects.py [REPORT.json …]`.

This file is copied into every export (`carbonsched audit export`), and is run there by Python alone: it imports nothing of carbonsched. It reads
intervals.tsv, journal.tsv, jobs.tsv and segments.tsv and prints one JSON line a job. Each REPORT.json, of `carbonsched report --job ID --format json`
without --from and --to, or of a period, is held against what the rows say; it ends with a line that begins with ok or with BAD. What each effect is of,
against what, and by which formula is in docs/reports.md.
"""

import json
import math
import statistics
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Span = tuple[int, int]
Step = tuple[int, int, float]
Spent = tuple[float, float]
"""(joules, grams)."""
Line = tuple[float, float, float, tuple[float, float, float]]
"""Line: (joules of a full step, the share c0 that ρ does not change, relative noise, covariance)."""

NEAR, PRIOR_C0, MINUTE_US, PIECE_US = 1e-6, 1 / 3, 60_000_000, 300_000_000
HUBER, MAD, SCALE_SD, SHAPE_SD, NOISE, NOISE_COUNT, LEAST_NOISE = 1.345, 1.4826, 1.0, 0.15, 0.03, 3.0, 1e-4
MOSTLY = 0.95
TIMES = {"start", "end", "at", "submitted", "started", "intensity_start", "grid_start"}
ADAPTERS, CHOSEN_ADAPTERS = ("lora", "prefix"), ("greentrainer+lora", "lora+tokens")
"""Methods that train adapters: all of them on every token, or those and on as many as ρ chose."""


def micros(text: str) -> int:
    at = datetime.fromisoformat(text.replace("Z", "+00:00")) - datetime(1970, 1, 1, tzinfo=timezone.utc)  # noqa: UP017
    return (at.days * 86400 + at.seconds) * 1_000_000 + at.microseconds


def read(path: Path) -> Iterator[Row]:
    """Parse each line's JSON, with its times also in microseconds."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            row = json.loads(line.split("\t", 1)[1])
            for name in TIMES & row.keys():
                row[name + "_us"] = None if row[name] is None else micros(row[name])
            yield row


def grams(facility_mj: float, g_per_kwh: float) -> float:
    return facility_mj / 1000 / 3.6e6 * g_per_kwh


# ---- the hours


class Curve:
    """The intensity over time, as the box's rows recorded it.

    Example:
        >>> Curve([(0, 10, 200.0), (10, 20, 100.0)]).mean(5, 15)
        150.0
    """

    def __init__(self, steps: Iterable[Step]) -> None:
        self.steps: list[Step] = []
        for start, end, g in sorted(steps):
            first = max(start, self.steps[-1][1]) if self.steps else start
            if first < end:
                self.steps.append((first, end, g))
        self.starts = [start for start, _, _ in self.steps]
        self.typical = self.within(0, 2**62)

    def within(self, start: int, end: int) -> float | None:
        """The mean over time of the known part of [start, end)."""
        parts = [(min(b, end) - max(a, start), g) for a, b, g in self.steps if a < end and b > start]
        span = sum(us for us, _ in parts)
        return sum(us * g for us, g in parts) / span if span else None

    def mean(self, start: int, end: int) -> float:
        """The mean over [start, end); the unknown part counts at the mean of all."""
        end = max(end, start + 1)
        i = max(bisect_right(self.starts, start) - 1, 0)
        weighted, known = 0.0, 0
        while i < len(self.steps) and self.steps[i][0] < end:
            first, last, g = self.steps[i]
            part = max(min(last, end) - max(first, start), 0)
            weighted, known = weighted + part * g, known + part
            i += 1
        unknown = 1 - known / (end - start)
        return (1 - unknown) * (weighted / known if known else 0.0) + unknown * (self.typical or 0.0)


def curve_of(rows: Sequence[Row]) -> Curve:
    """The curve of rows of any owner; rows of one minute that were charged alike are one step."""
    keys = ("g_per_kwh", "provider", "zone", "basis", "kind", "note", "intensity_start_us", "grid_start_us")
    steps: dict[tuple[Any, ...], Span] = {}
    for row in rows:
        if row["account"] == "imported" or row["energy_mj"] is None or row["g_per_kwh"] is None:
            continue
        key = (*(row.get(name) for name in keys), row["start_us"] // MINUTE_US)
        start, end = steps.get(key, (row["start_us"], row["end_us"]))
        steps[key] = (min(start, row["start_us"]), max(end, row["end_us"]))
    return Curve((start, end, key[0]) for key, (start, end) in steps.items())


def pieces_of(rows: Sequence[Row]) -> list[tuple[int, int, float, float]]:
    """(start, end, millijoules with PUE, g/kWh); neighbours of one board and intensity in the same five minutes of the clock are joined."""
    done: list[tuple[int, int, float, float]] = []
    growing: dict[str, tuple[int, int, float, float]] = {}
    for row in rows:
        if row["energy_mj"] is None or row["g_per_kwh"] is None:
            continue
        new = (row["start_us"], row["end_us"], row["energy_mj"] * row["pue"], row["g_per_kwh"])
        old = growing.get(row["board"])
        if (
            old is not None
            and old[1] == new[0]
            and old[3] == new[3]
            and old[0] // PIECE_US == new[0] // PIECE_US
        ):
            new = (old[0], new[1], old[2] + new[2], new[3])
        elif old is not None:
            done.append(old)
        growing[row["board"]] = new
    return [*done, *growing.values()]


def union(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for start, end in spans:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        elif start < end:
            found.append((start, end))
    return found


def without(spans: Iterable[Span], holes: Sequence[Span]) -> list[Span]:
    found = []
    for begin, end in spans:
        start = begin
        for a, b in holes:
            if b > start and a < end:
                if a > start:
                    found.append((start, a))
                start = max(start, b)
        if start < end:
            found.append((start, end))
    return found


def before(spans: Sequence[Span]) -> Callable[[int], int]:
    """How much of ascending spans lies before a time."""
    starts, sums = [a for a, _ in spans], [0]
    for a, b in spans:
        sums.append(sums[-1] + b - a)

    def measure(us: int) -> int:
        i = bisect_left(starts, us)
        return sums[i] - (max(spans[i - 1][1] - us, 0) if i else 0)

    return measure


def waits_of(
    submitted: int, rows: Sequence[Row], states: Sequence[tuple[int, str]]
) -> tuple[list[Span], list[Span]]:
    """Waits that the planner chose, and forced ones; rows during a wait belong to it."""
    spans = sorted((row["start_us"], row["end_us"]) for row in rows)
    last = max((end for _, end in spans), default=submitted)
    waiting = [
        (max(a[0], submitted), min(b[0], last))
        for a, b in pairwise([*states, (last, "")])
        if a[1] == "waiting" and a[0] < last
    ]
    idle = without([(submitted, last)], without(union(spans), waiting))
    return without(idle, without(idle, waiting)), without(idle, waiting)


def timing(job: Row, rows: Sequence[Row], curve: Curve, states: Sequence[tuple[int, str]]) -> Row:
    """Grams saved by choosing the hours, against the same work started at submission and run without pause."""
    submitted = job["submitted_us"]
    first, last = min(row["start_us"] for row in rows), max(row["end_us"] for row in rows)
    pieces = pieces_of(rows)
    if not any(piece[2] for piece in pieces) or curve.typical is None:
        return dict.fromkeys(("timing", "chosen", "forced", "mean_intensity"))
    chosen, forced = waits_of(submitted, rows, states)
    waited, held = before(chosen), before(forced)
    at_once = forced_alone = ran = facility = 0.0
    for start, end, mj, g in pieces:
        ran, facility = ran + grams(mj, g), facility + mj
        work = mj * (1 - (waited(end) - waited(start)) / (end - start) if end > start else 1.0)

        def moved(back: Callable[[int], int], start: int = start, end: int = end, g: float = g) -> float:
            to = start - back(start), end - back(end)
            return g if to == (start, end) else curve.mean(*to)

        at_once += grams(work, moved(lambda us: waited(us) + held(us)))
        forced_alone += grams(work, moved(waited))
    began = first if job["started_us"] is None else min(first, job["started_us"])
    mean = curve.within(began, last)
    return {
        "timing": at_once - ran,
        "chosen": forced_alone - ran,
        "forced": at_once - forced_alone,
        "mean_intensity": None if mean is None or facility <= 0 else grams(facility, mean) - ran,
    }


# ---- the FLOPs


def fitted(points: Sequence[tuple[float, float]], full: float) -> Line:
    """Joules per step as a function of ρ: a robust line fit with a prior of c0 = 1/3. points: (ρ, joules per step)."""
    if not points:
        scale = max(full, 1e-12)
        return full, PRIOR_C0, NOISE, ((SCALE_SD * scale) ** 2, 0.0, (SHAPE_SD * scale) ** 2)
    shape = [PRIOR_C0 + (1 - PRIOR_C0) * rho for rho, _ in points]
    scale = statistics.median(y / s for (_, y), s in zip(points, shape, strict=True))
    noise, weight, theta = NOISE, [1.0] * len(points), (scale, 0.0)
    pull = (1 / (SCALE_SD * scale) ** 2, 1 / (SHAPE_SD * scale) ** 2)
    covariance = (1.0, 0.0, 1.0)
    for _ in range(30):
        aa, ab, bb, ra, rb = pull[0], 0.0, pull[1], pull[0] * scale, 0.0
        for (rho, y), s, w in zip(points, shape, weight, strict=True):
            level = max(theta[0] * s + theta[1] * (1 - rho), 0.05 * scale)
            precision = w / (noise**2 * level**2)
            aa, ab, bb = (
                aa + precision * s * s,
                ab + precision * s * (1 - rho),
                bb + precision * (1 - rho) ** 2,
            )
            ra, rb = ra + precision * s * y, rb + precision * (1 - rho) * y
        det = aa * bb - ab * ab
        covariance = (bb / det, -ab / det, aa / det)
        new = (covariance[0] * ra + covariance[1] * rb, covariance[1] * ra + covariance[2] * rb)
        fit = [new[0] * s + new[1] * (1 - rho) for (rho, _), s in zip(points, shape, strict=True)]
        residual = [(y - f) / max(f, 0.05 * scale) for (_, y), f in zip(points, fit, strict=True)]
        apart, free = MAD * statistics.median(map(abs, residual)), max(len(points) - 2, 0)
        noise = max(math.sqrt((NOISE_COUNT * NOISE**2 + free * apart**2) / (NOISE_COUNT + free)), LEAST_NOISE)
        size = [abs(r) / (HUBER * noise) for r in residual]
        weight = [1.0 if each <= 1 else 1 / max(each, 1e-12) for each in size]
        near = all(abs(a - b) <= 1e-9 * scale for a, b in zip(new, theta, strict=True))
        theta = new
        if near:
            break
    top = max(theta[0], 1e-12)
    return top, min(max(PRIOR_C0 + theta[1] / top, 0.0), 1.0), noise, covariance


def line_of(known: Sequence[Row], spent: dict[int, Spent]) -> Line:
    done = known[0]["done"]
    seconds = max(done["seconds"] / max(done["steps"], 1), 1e-9)
    watts = spent[known[0]["k"]][0] / max(done["seconds"], 1e-9)
    points = [
        (each["done"]["rho_realised"], spent[each["k"]][0] / each["done"]["steps"])
        for each in known
        if each["done"]["steps"] > 0 and each["done"]["seconds"] > 0
    ]
    return fitted(points, seconds * watts)


def spent_of(segment: Row, rows: Sequence[Row]) -> Spent:
    """Joules and grams of importance, selection and steps in the attempt that counts."""
    whole, lost, stepped = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for row in rows:
        if row["segment"] != segment["k"] or row["energy_mj"] is None:
            continue
        sums = [whole]
        if row["rho"] is not None:  # without it no step had run
            sums.append(lost if row["end_us"] <= segment["start_us"] else stepped)
        for each in sums:
            each[0], each[1] = each[0] + row["energy_mj"] / 1000, each[1] + (row["grams"] or 0.0)
    joules, g = whole[0] - lost[0], whole[1] - lost[1]
    done = segment["done"]
    early = done["importance_seconds"] + done["selection_seconds"]
    if stepped[0] > 0 and done["seconds"] > early:
        factor = min(done["seconds"] / (done["seconds"] - early), joules / stepped[0])
        return stepped[0] * factor, stepped[1] * factor
    wall = (segment["end_us"] - segment["start_us"]) / 1e6
    busy = min(done["seconds"] / wall, 1.0) if wall > 0 else 1.0
    return joules * busy, g * busy


def own_ratio(done: Row) -> float:
    """FLOPs of the user's own run over those of full fine-tuning."""
    own, full = done.get("flops_own"), done["flops_full"]
    ratio = 1.0 if own is None or not full else own / full
    return 1.0 if math.isclose(ratio, 1.0, abs_tol=NEAR) else ratio


def flops(segments: Sequence[Row], spent: dict[int, Spent], method: str) -> Row:
    """Grams saved by fewer FLOPs, by leaving out waste, and by lower clocks; None if unknown."""
    unknown: Row = {"flops": None, "waste": None}
    told = segments
    if method in ADAPTERS:
        told = [each | {"done": each["done"] | {"flops_own": each["done"]["flops"]}} for each in segments]
    elif method in CHOSEN_ADAPTERS and any(each["done"].get("flops_own") is None for each in segments):
        return unknown
    known = [each for each in told if each["k"] in spent and spent[each["k"]][0] > 0]
    if not known:
        return unknown
    c0 = line_of(known, spent)[1]
    less = waste = 0.0
    for each in known:
        done, g = each["done"], spent[each["k"]][1]
        ratio, own = c0 + (1 - c0) * done["rho_realised"], own_ratio(done)
        if ratio > 0:
            less += g * ((c0 + (1 - c0) * own) / ratio - 1)
        if ratio > 0 and done["flops_full"] and done.get("waste"):
            left_out = done["waste"]["padding_flops"] + done["waste"]["head_flops"]
            waste += g * (1 - c0) * own * left_out / done["flops_full"] / ratio
    every = all(each["done"].get("waste") for each in known)
    return {"flops": less, "waste": waste if every else None}


def clocks(
    segments: Sequence[Row], spent: dict[int, Spent], changes: Sequence[tuple[int, int | None]]
) -> float | None:
    """Grams saved by lower clocks; None if no clock was locked, or there is nothing to compare with."""
    known = [each for each in segments if each["k"] in spent and spent[each["k"]][0] > 0]
    held = {each["k"]: clock_during(each, changes) for each in known}
    own = [each for each in known if held[each["k"]] == (None, True)]
    locked = [each for each in known if held[each["k"]][0] is not None]
    if not any(mhz for _, mhz in changes) or not own or not locked:
        return None
    full, c0, _, _ = line_of(own, spent)
    saved = 0.0
    for each in locked:
        joules, g = spent[each["k"]]
        done = each["done"]
        saved += g * (full * (c0 + (1 - c0) * done["rho_realised"]) * done["steps"] / joules - 1)
    return saved


def clock_during(segment: Row, changes: Sequence[tuple[int, int | None]]) -> tuple[int | None, bool]:
    """(MHz during a segment's steps, None: the board's own clock; whether it was constant)."""
    done, end = segment["done"], segment["end_us"]
    steps_s = max(done["seconds"] - done["importance_seconds"] - done["selection_seconds"], 0.0)
    start = end - round(steps_s * 1e6)
    held: dict[int | None, int] = {}
    for (at, mhz), (until, _) in pairwise([(-(2**62), None), *changes, (2**62, None)]):
        held[mhz] = held.get(mhz, 0) + max(min(until, end) - max(at, start), 0)
    most = max(held, key=lambda mhz: held[mhz])
    return (most, True) if held[most] >= MOSTLY * (end - start) else (None, False)


# ---- all of it


def effects(folder: Path) -> Iterator[tuple[str, Row]]:
    """Job → grams saved by each effect, None if the rows do not tell."""
    every = sorted(read(folder / "intervals.tsv"), key=lambda row: (row["start_us"], row["id"]))
    starts = [row["start_us"] for row in every]
    gone = {row.get("replaces") for row in every}
    charged_to: dict[str | None, list[Row]] = {}
    for row in sorted(every, key=lambda row: row["id"]):
        if row["id"] not in gone:
            charged_to.setdefault(row["job_id"], []).append(row)
    journal = list(read(folder / "journal.tsv"))
    counted: dict[tuple[str, int], Row] = {}
    for segment in read(folder / "segments.tsv"):
        segment["done"] = json.loads(segment["done"])
        old = counted.get((segment["job_id"], segment["k"]))
        if old is None or segment["attempt"] > old["attempt"]:
            counted[segment["job_id"], segment["k"]] = segment
    for job in read(folder / "jobs.tsv"):
        spec = json.loads(job["spec"])["spec"]
        rows = charged_to.get(job["id"], [])
        segments = [counted[key] for key in sorted(counted) if key[0] == job["id"]]
        if not rows or (spec.get("command") is not None and not segments):
            continue
        mine = [entry for entry in journal if entry["job_id"] == job["id"]]
        states = [(e["at_us"], str(json.loads(e["detail"])["state"])) for e in mine if e["kind"] == "state"]
        changes = [(e["at_us"], json.loads(e["detail"])["mhz"]) for e in mine if e["kind"] == "clocks"]
        charged = {row["segment"] for row in rows}
        spent = {each["k"]: spent_of(each, rows) for each in segments if each["k"] in charged}
        first, last = min(row["start_us"] for row in rows), max(row["end_us"] for row in rows)
        since = bisect_left(starts, min(job["submitted_us"], first))
        curve = curve_of(every[since : bisect_left(starts, last)])
        found = flops(segments, spent, spec["train"]["method"]) | timing(job, rows, curve, states)
        yield job["id"], found | {"clocks": clocks(segments, spent, changes)}


def summed(report: Row, found: dict[str, Row]) -> str | None:
    """Which effects in a period's report differ from the sums over its jobs; None: none."""
    told = report.get("effects")
    if told is None:
        return "the period's report tells no effects"
    if missing := [job for job in told["jobs"] if job not in found]:
        return f"{missing[0]} is summed and has no rows"
    for name, theirs in told["sums"].items():
        ours = [g for job in told["jobs"] if (g := found[job][name]) is not None]
        said = theirs["saved_g"] or 0.0
        if len(ours) != theirs["jobs"] or not math.isclose(sum(ours), said, rel_tol=1e-9, abs_tol=1e-9):
            return f"the rows come to {sum(ours)} g by {name} of {len(ours)} jobs, the report says {said} g of {theirs['jobs']}"
    return None


def compare(report: Row, found: dict[str, Row]) -> str | None:
    """Where a report differs from the rows; None: nowhere."""
    if report["job_id"] is None:
        return summed(report, found)
    job, savings = report["job_id"], report["savings"]
    if job not in found or savings is None:
        return None if job not in found and savings is None else f"{job}: there is nothing to compare"
    for name, ours in found[job].items():
        theirs = (savings[name] or {}).get("saved_g")
        if ours is None or theirs is None:
            same = ours is theirs
        else:
            same = math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-9)
        if not same:
            return f"{job}: the rows come to {ours} g by {name}, the report says {theirs} g"
    return None


def main(reports: Sequence[str]) -> str:
    """Returns the last line."""
    found = dict(effects(Path(__file__).parent))
    for job, saved in found.items():
        sys.stdout.write(
            json.dumps({"job_id": job} | {f"{name}_saved_g": g for name, g in saved.items()}) + "\n"
        )
    for name in reports:
        if (wrong := compare(json.loads(Path(name).read_text(encoding="utf-8")), found)) is not None:
            sys.exit(f"BAD: {name}: {wrong}")
    return f"ok: {len(found)} jobs, {len(reports)} reports agree to 1e-9"


if __name__ == "__main__":
    try:
        sys.stdout.write(main(sys.argv[1:]) + "\n")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
        sys.exit(
            f"BAD: a file of the export or a report is missing or not what was written ({type(e).__name__}: {e})"
        )

"""Reruns every figure of docs/planner.md: `python -m benchmarks.planner --traces DIR --out FILE.json`.

Traces are CSV files `datetime,g_per_kwh[,forecast_g_per_kwh]`; `polled_at,datetime,g_per_kwh` is a log of real polls.
One JSON document, `{table: [row…]}`, on stdout or in --out, where it is written anew after every case: with --resume a
run that was broken off goes on behind the last one. Progress on stderr. --table picks some of the tables, --starts how
many random starts a case has.
"""

import argparse
import csv
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from benchmarks.planner.cases import TABLES, BenchmarkInputs, Row
from carbonsched.errors import InputError
from carbonsched.feeds.trace import COLUMNS, read_trace
from carbonsched.model.profile import read_frontier
from carbonsched.plan.simulation.request import LINEAR, TraceArrays

Report = dict[str, list[Row]]


def kind_of(path: Path) -> Literal["trace", "polls"] | None:
    """What a CSV file holds by its header; None: neither a trace nor a log of polls."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    if {"polled_at", "datetime", "g_per_kwh"} <= set(header):
        return "polls"
    return "trace" if header in (list(COLUMNS[:2]), list(COLUMNS)) else None


def read(path: Path) -> TraceArrays:
    """A trace file as arrays. Raises InputError that names the line at fault."""
    trace = read_trace(path)
    return TraceArrays(trace.times, trace.g_per_kwh, trace.forecast)


def read_polls(path: Path) -> tuple[TraceArrays, TraceArrays]:
    """A log of polls as two traces: what was known when, and what was finally settled for each hour."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    known = {_time(row["polled_at"]): float(row["g_per_kwh"]) for row in rows}
    final = {_time(row["datetime"]): float(row["g_per_kwh"]) for row in rows}
    return _arrays(known), _arrays(final)


def _arrays(values: dict[datetime, float]) -> TraceArrays:
    times = sorted(values)
    return TraceArrays(times, [values[time] for time in times])


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    if (options.resume or options.markdown) and options.out is None:
        flag = "--resume" if options.resume else "--markdown"
        raise InputError(flag, "needs --out", "give the file of the run before")
    inputs = BenchmarkInputs(
        *_traces(options.traces, options.only),
        options.starts,
        options.adversarial,
        LINEAR if options.frontier is None else read_frontier(options.frontier, "--frontier"),
    )
    report: Report = _earlier(options.out) if options.resume or options.markdown else {}
    if options.markdown:
        sys.stdout.write(markdown(report))
        return 0
    began = time.monotonic()
    for table in options.table or TABLES:
        rows = report.setdefault(table, [])
        known = {row["case"] for row in rows}
        cases = list(TABLES[table](inputs))
        for n, case in enumerate(cases, start=1):
            if case.name in known:
                continue
            row = {"case": case.name, **case.about, **case.run()}
            rows.append(row)
            minutes = (time.monotonic() - began) / 60
            sys.stderr.write(f"[{minutes:.1f} min] {table} {n}/{len(cases)}: {json.dumps(row)}\n")
            sys.stderr.flush()
            if options.out is not None:
                _write(options.out, report)
    if options.out is None:
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
    else:
        _write(options.out, report)
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument("--traces", type=Path, required=True, help="folder of trace CSV files")
    parser.add_argument("--table", action="append", choices=list(TABLES), help="only these; may repeat")
    parser.add_argument(
        "--starts", type=int, default=200, help="random starts per case (pauses: a fifth, polled: a tenth)"
    )
    parser.add_argument("--adversarial", type=int, default=10_000, help="adversarial runs")
    parser.add_argument(
        "--frontier", type=Path, help="FRONTIER.json of a measured model instead of linear gain"
    )
    parser.add_argument("--only", default="", help="only traces whose file name has this in it")
    parser.add_argument("--out", type=Path, help="write the JSON here, case by case, instead of to stdout")
    parser.add_argument("--resume", action="store_true", help="go on with what --out already holds")
    parser.add_argument(
        "--markdown", action="store_true", help="run nothing, print what --out holds as tables"
    )
    return parser.parse_args(argv)


def _traces(
    folder: Path, only: str
) -> tuple[dict[str, TraceArrays], dict[str, tuple[TraceArrays, TraceArrays]]]:
    """(traces, logs of polls) of a folder by file name, of the files whose name has `only` in it."""
    kinds = {path: kind_of(path) for path in sorted(folder.glob("*.csv")) if only in path.name}
    traces = {path.name: read(path) for path, kind in kinds.items() if kind == "trace"}
    polls = {path.name: read_polls(path) for path, kind in kinds.items() if kind == "polls"}
    if not traces and not polls:
        raise InputError(
            "--traces", f"no trace with {only!r} in its name in {folder}", "give the folder with the traces"
        )
    return traces, polls


def markdown(report: Report) -> str:
    """Each table's rows as Markdown, one column per figure."""
    parts = []
    for table, rows in report.items():
        columns = list(dict.fromkeys(name for row in rows for name in row if name != "case"))
        lines = [columns, ["---"] * len(columns)]
        lines += [[_cell(row.get(name)) for name in columns] for row in rows]
        parts.append(f"### {table}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(parts)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _earlier(path: Path) -> Report:
    try:
        report: Report = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as e:
        raise InputError("--out", f"{path} holds no report to resume", "remove it or drop --resume") from e
    return report


def _write(path: Path, report: Report) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as e:
        sys.stderr.write(f"{e}\n")
        sys.exit(e.exit_code)

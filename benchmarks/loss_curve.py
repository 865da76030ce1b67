"""Measures how well the loss curve foretells recorded runs: error of the loss at the end, and coverage of its band.

    python -m benchmarks.loss_curve [--json] [--record JOB_DIR --data NAME]

Runs are those of docs/results/scitldr (bench, one file) and docs/results/loss-curve/runs.json (jobs on other data, added by `--record` from their
events). Each is foretold: by its loss before training alone; by that and half of its segments; by one full run on the same data,
of another seed where there is one; by one run of selected tensors, which itself has to be weighed against full steps. A run's own end is never
among what is told.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from carbonsched.model.methods.efficiency import prior_efficiency
from carbonsched.model.methods.lora import ALL_LINEAR
from carbonsched.model.protocol import EVENTS, Evaluated, SegmentDone
from carbonsched.plan.loss_curve import HeldOut, LossCurve, LossHistory, Stretch

RESULTS = Path(__file__).parent.parent / "docs" / "results"
OTHERS = RESULTS / "loss-curve" / "runs.json"
SEGMENT = 75
"""Steps of a segment in docs/results/scitldr.toml."""


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run that ended.

    Example::

        ends = [run.end for run in recorded_runs() if run.method == "full"]
    """

    data: str
    method: str
    seed: int
    history: LossHistory
    """Of all it has shown, the end last."""

    @property
    def end(self) -> float:
        """The held-out loss after its last step."""
        return self.history.held_out[-1].loss

    def shown(self, segments: int) -> LossHistory:
        """What was known after so many segments."""
        held = tuple(h for h in self.history.held_out[:-1] if h.after <= segments)
        return LossHistory(self.history.stretches[:segments], held)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far off the losses were that were foretold in one way.

    Example:
        >>> Calibration("the loss before", runs=61, error=0.1, bias=0.0, margin=0.7, coverage=1.0).runs
        61
    """

    told: str
    runs: int
    error: float
    """Mean absolute, nats."""
    bias: float
    """Mean of foretold less seen."""
    margin: float
    """Mean half band."""
    coverage: float
    """Share of runs whose end lies in the band, meant to be .9 or more."""


def recorded_runs() -> list[RecordedRun]:
    """All runs that are kept."""
    bench = json.loads((RESULTS / "scitldr" / "results.json").read_text())["results"]
    runs = [_of_bench(run) for run in bench]
    if OTHERS.exists():
        runs += [_of_record(run) for run in json.loads(OTHERS.read_text())]
    return runs


def calibrate(runs: Sequence[RecordedRun]) -> list[Calibration]:
    """Foretell each run in every way."""
    ways: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        stretches = run.history.stretches
        for told, segments, others in (
            ("the loss before", 0, ()),
            ("that and half of its segments", len(stretches) // 2, ()),
            ("one full run of the same data", 0, _teacher(run, runs)),
            ("one run of tensors of the same data", 0, _teacher(run, runs, "greentrainer")),
        ):
            if (told.startswith("one") and not others) or (told.startswith("that") and not segments):
                continue
            found = LossCurve.fit(run.shown(segments), others).predict(stretches[segments:])
            ways.setdefault(told, []).append((found.loss - run.end, found.margin))
    return [
        Calibration(
            told,
            runs=len(pairs),
            error=statistics.fmean(abs(off) for off, _ in pairs),
            bias=statistics.fmean(off for off, _ in pairs),
            margin=statistics.fmean(margin for _, margin in pairs),
            coverage=statistics.fmean(abs(off) <= margin for off, margin in pairs),
        )
        for told, pairs in ways.items()
    ]


def _teacher(run: RecordedRun, runs: Sequence[RecordedRun], method: str = "full") -> tuple[LossHistory, ...]:
    """The longest run of a method on the same data, of another seed where there is one; only full's teaches its own kind."""
    found = [r for r in runs if r.data == run.data and r.method == method and r is not run]
    if not found or (method != "full" and run.method == method):
        return ()
    found.sort(
        key=lambda r: (r.seed != run.seed, len(r.history.stretches), -abs(r.seed - run.seed)), reverse=True
    )
    return (found[0].history,)


def _of_bench(run: dict[str, Any]) -> RecordedRun:
    steps = [min(SEGMENT, run["steps"] - k * SEGMENT) for k in range(len(run["losses"]))]
    # its adapters were on queries and values
    worth = prior_efficiency(run["method"], run["rho_realised"], all_linear=False)
    stretches = tuple(
        Stretch(run["method"], n, worth, loss) for n, loss in zip(steps, run["losses"], strict=True)
    )
    held = (HeldOut(0, run["dev_nll_before"]), HeldOut(len(stretches), run["dev_nll"]))
    return RecordedRun("scitldr", run["method"], run["seed"], LossHistory(stretches, held))


def _of_record(run: dict[str, Any]) -> RecordedRun:
    floor, everywhere = run["rho_floor"], run.get("lora_targets") == ALL_LINEAR
    stretches = tuple(
        Stretch(
            run["method"],
            steps,
            prior_efficiency(
                run["method"], rho, floor=floor, share=share[0] if share else None, all_linear=everywhere
            ),
            loss,
        )
        for steps, rho, loss, *share in run["segments"]
    )
    held = tuple(HeldOut(after, loss) for after, loss in run["held_out"])
    return RecordedRun(run["data"], run["method"], run["seed"], LossHistory(stretches, held))


def record(job: Path, data: str) -> dict[str, Any]:
    """What `runs.json` keeps of a finished job: its losses by segment."""
    spec = json.loads((job / "spec.json").read_text())["spec"]
    events = [EVENTS.validate_json(line) for line in (job / "events.jsonl").read_text().splitlines()]
    done = [event for event in events if isinstance(event, SegmentDone)]
    ends = [0, *(d.first_step + d.steps for d in done)]
    floors = [event.rho_floor for event in events if event.event == "segment_ready"]
    held = [e for e in events if isinstance(e, Evaluated) and e.when in ("before", "after", "segment")]
    return {
        "data": data,
        "method": spec["train"]["method"],
        "seed": spec["train"]["seed"],
        "lr": spec["train"]["lr"],
        "lora_targets": spec["train"].get("lora_targets"),
        "rho_floor": floors[0],
        "segments": [
            [
                d.steps,
                round(d.rho_realised, 4),
                d.loss,
                *([] if d.gradient_share is None else [round(d.gradient_share, 4)]),
            ]
            for d in done
        ],
        "held_out": [[ends.index(e.step), e.loss] for e in held],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--record", type=Path, metavar="JOB_DIR", help="add a finished job to the recorded runs"
    )
    parser.add_argument("--data", default="", help="name of its data set")
    asked = parser.parse_args()
    if asked.record:
        kept = json.loads(OTHERS.read_text()) if OTHERS.exists() else []
        OTHERS.write_text(json.dumps([*kept, record(asked.record, asked.data)], indent=1) + "\n")
        return
    found = calibrate(recorded_runs())
    if asked.json:
        print(json.dumps([asdict(row) for row in found], indent=1))
        return
    print("| told by | runs | mean error, nats | bias | half band | coverage |\n|---|---|---|---|---|---|")
    for row in found:
        figures = f"{row.error:.3f} | {row.bias:+.3f} | {row.margin:.3f} | {row.coverage:.0%}"
        print(f"| {row.told} | {row.runs} | {figures} |")


if __name__ == "__main__":
    main()

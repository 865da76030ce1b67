"""Writes the model card beside a fine-tuned model, without the grams, which only the daemon knows.

`carbonsched report --job ID --format model-card` writes the same card with them.
"""

from collections.abc import Iterable
from typing import Any

from carbonsched.model.job import JobSpec
from carbonsched.model.model_card import PEFT, Card, Known
from carbonsched.model.protocol import Evaluated, Event, SegmentDone, Started


def model_card(
    job_id: str, spec: JobSpec, events: Iterable[Event], kind: str, generation: dict[str, Any] | None
) -> Card:
    """kind: what the folder holds, `model`, `merged` or `adapter`. generation: how text was generated, if any was."""
    segments: dict[int, SegmentDone] = {}
    evaluations: dict[tuple[str, int], Evaluated] = {}
    started: Started | None = None
    for event in events:
        match event:
            case SegmentDone():
                segments[event.k] = event
            case Evaluated():
                key = (event.when, event.step if event.when == "segment" else 0)
                evaluations[key] = event
            case Started():
                started = event
    again = f"carbonsched report --job {job_id} --format model-card has them"
    return Card(
        spec=spec,
        emissions_g=Known(None, f"the trainer meters nothing; {again}, if a daemon ran the job"),
        location=Known(None, "the trainer does not know where it runs"),
        hardware=Known(started.device if started else None, "no process said which"),
        source="carbonsched: energy of the board and the host as the daemon knows it, times PUE and the grid's intensity at the time",
        segments=[segments[k] for k in sorted(segments)],
        evaluations=tuple(evaluations.values()),
        library=PEFT if kind == "adapter" else "transformers",
        generation=generation,
        versions=started.versions if started else {},
    )

"""Does `python -m trainer profile`, `cost`, `select` and `bench select`: reads JSON documents and answers one."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from carbonsched.errors import InputError
from carbonsched.model.error_words import syntax_words
from carbonsched.model.profile import Costs, FrontierDoc, Profile, Selection

if TYPE_CHECKING:
    from trainer.bench.select import BenchSelect
    from trainer.selection.frontier import Frontier


def profile(
    model: str,
    batch: int,
    seq: int,
    target_seq: int | None,
    attn: str,
    dtype: str,
    labelled: int | None = None,
    gradient_share: float | None = None,
) -> Profile:
    """Measure `model`, a folder or a hub id, from its config alone; gradient_share: τ, counted on labelled tokens. Raises InputError."""
    # torch and transformers take seconds to import: only for this command
    from trainer.data.models import quiet
    from trainer.profiling import profiler as flops
    from trainer.profiling.meta_model import meta_model

    quiet()
    # its retries would print on stderr beside the one line that explains the error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if labelled is not None and labelled > (target_seq or seq):
        raise InputError(
            "labelled", f"{labelled} of {target_seq or seq} tokens", "give those of a row that have a label"
        )
    gradient = None
    if gradient_share is not None:
        if not 0 < gradient_share <= 1:
            raise InputError("gradient-share", f"is {gradient_share:g}", "give a share above 0 and at most 1")
        gradient = max(int(gradient_share * seq + 1e-9), labelled or 1)
    return flops.profile(
        meta_model(model, attn, dtype),
        batch,
        seq,
        target_seq,
        name=model,
        labelled=labelled,
        gradient=gradient,
    )


def cost(profile_file: Path, selections_file: Path) -> Costs:
    """Forward + backward FLOPs of each selection in a JSON list of lists of names. Raises InputError."""
    from trainer.selection.cost_model import CostModel

    model = CostModel.of(read_profile(profile_file))
    selections = _read(selections_file, "selections", list[list[str]], "a list of lists of tensor names")
    return Costs(flops=tuple(model.flops(s, f"selections[{k}]") for k, s in enumerate(selections)))


def select(profile_file: Path, importance_file: Path, rho: float) -> Selection:
    """The best selection at `rho`. Raises InputError."""
    return _frontier(profile_file, importance_file).select(rho)


def frontier(profile_file: Path, importance_file: Path, points: int | None) -> FrontierDoc:
    """The whole curve, or about `points` of its steps. Raises InputError."""
    return FrontierDoc(frontier=_frontier(profile_file, importance_file).points(points))


def bench_select(
    profile_file: Path | None,
    shape: str | None,
    batch: int,
    seq: int,
    importance_file: Path | None,
    rhos: list[float],
) -> "BenchSelect":
    """Our selection beside the published dynamic program, on a profile or a known shape. Raises InputError."""
    from trainer.bench.select import bench_select as measure

    if (profile_file is None) == (shape is None):
        raise InputError("--profile", "is given with --shape, or neither is", "give one of the two")
    importance = _importance(importance_file) if importance_file else None
    if profile_file is not None:
        return measure(read_profile(profile_file), importance, rhos)
    from trainer.bench import shapes
    from trainer.data.models import quiet
    from trainer.profiling import profiler as flops
    from trainer.profiling.meta_model import meta_from_config

    quiet()
    made = flops.profile(meta_from_config(shapes.shape(shape or "")), batch, seq, name=shape)
    return measure(made, importance, rhos)


def read_profile(file: Path) -> Profile:
    return Profile.parse(_json(file, "profile"), str(file))


def _frontier(profile_file: Path, importance_file: Path) -> "Frontier":
    from trainer.selection.frontier import Selector

    selector = Selector(read_profile(profile_file))
    return selector.frontier(_importance(importance_file))


def _importance(file: Path) -> dict[str, Any]:
    values: dict[str, Any] = _read(file, "importance", dict[str, Any], "an object {name: value}")
    return values


def _read(file: Path, field: str, kind: Any, form: str) -> Any:
    try:
        return TypeAdapter(kind).validate_python(_json(file, field))
    except ValidationError as e:
        raise InputError(field, f"{file} has another form", f"write {form}") from e


def _json(file: Path, field: str) -> Any:
    text = ""
    try:
        text = file.read_text(encoding="utf-8")
        return json.loads(text)
    except OSError as e:
        raise InputError(
            field, f"{file} cannot be read ({e.strerror})", "give the path of a JSON file"
        ) from e
    except (ValueError, RecursionError) as e:
        problem = str(e) if isinstance(e, RecursionError) else syntax_words(text, e)[0]
        raise InputError(field, f"{file} is not JSON ({problem})", "give a JSON file") from e

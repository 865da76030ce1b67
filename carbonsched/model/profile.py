"""Defines the documents that `python -m trainer profile`, `cost`, `select` and `check` print, and reads FRONTIER.json."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from carbonsched.errors import InputError
from carbonsched.model.base import MOST, Doc, Line
from carbonsched.model.protocol import Count, FrontierPoint, Ratio, Segments, Steps
from carbonsched.model.setting import MOST_SETTINGS, ForeseenSetting


class TensorCost(Doc):
    """What training one tensor costs.

    Example:
        >>> TensorCost(name="lm_head.weight", numel=64, depth_flops=0.0, dw_flops=1e6).dw_flops
        1000000.0
    """

    name: str
    """As `named_parameters()` gives it, a tie once."""
    numel: int
    depth_flops: float
    """Backward FLOPs to bring the activation gradient down to this tensor."""
    dw_flops: float
    """FLOPs to form its own gradient."""


class Profile(Doc):
    """What one batch of one shape costs, for every tensor. FLOPs: 2 per multiply-accumulate.

    Example::

        profile = Profile.parse(json.loads(Path("profile.json").read_text()))
        forward_share = profile.forward_flops / profile.full_flops
    """

    model: str
    params: int
    forward_flops: float
    full_flops: float
    """Forward + backward with every tensor trained."""
    tensors: tuple[TensorCost, ...]
    batch: int
    seq: int
    target_seq: int | None = None
    labelled: int | None = None
    """Tokens of a row that alone run through the output embeddings; None: every token does."""
    gradient: int | None = None
    """Last tokens of a row that gradient flows through, the others run beforehand; None: through every token."""
    attn: str = "eager"
    dtype: str = "fp32"
    patterns: dict[str, Any] = {}
    """What the exact cost model measured beyond the chain formula; empty where the chain is exact."""
    notes: tuple[str, ...] = ()
    """What the figures leave out or assume, in words."""


class Costs(Doc):
    """What `trainer cost` prints: FLOPs of a step with each selection.

    Example:
        >>> Costs(flops=(1e12, 2e12)).flops[0]
        1000000000000.0
    """

    flops: tuple[float, ...]


class Selection(Doc):
    """What `trainer select` prints: the tensors to train at a ρ.

    Example:
        >>> Selection(rho_planned=0.5, importance=1.2, selected=("lm_head.weight",)).selected
        ('lm_head.weight',)
    """

    rho_planned: float
    importance: float
    selected: tuple[str, ...]
    gradient_share: float | None = None
    """τ: share of the tokens that gradient flows through; None: all of them."""


class FrontierDoc(Doc):
    """FRONTIER.json: best total importance for every ρ, a non-decreasing curve.

    Example:
        >>> FrontierDoc.parse({"frontier": [{"rho": 0.4, "importance": 1.2}]}).frontier[0].rho
        0.4
    """

    frontier: tuple[FrontierPoint, ...]


def read_frontier(path: Path, option: str) -> tuple[tuple[float, float], ...]:
    """FRONTIER.json as (ρ, importance), rising, ρ in 0..1. Raises InputError that names the option it was given by."""
    try:
        points = FrontierDoc.model_validate_json(path.read_bytes()).frontier
    except OSError as e:
        raise InputError(option, f"{path} cannot be read: {e.strerror}", "give a FRONTIER.json") from e
    except ValueError as e:
        raise InputError(
            option, f"{path} is no frontier", 'write {"frontier": [{"rho": 0.4, "importance": 1.2}, …]}'
        ) from e
    rising = all(a.rho < b.rho and a.importance <= b.importance for a, b in pairwise(points))
    if not points or not rising or points[0].rho < 0 or points[-1].rho > 1:
        raise InputError(option, f"{path} is not a rising curve over ρ in 0..1", "sort it by rho, each once")
    return tuple((point.rho, point.importance) for point in points)


class Removal(Doc):
    """A kind of waste that a stock Trainer has, and whether a job leaves it out.

    Example:
        >>> Removal(what="padding", on=False, text="data.pack fills every block: there is no padding").on
        False
    """

    what: Literal["head", "padding", "precision", "update"]
    on: bool
    text: Line
    """How, or why not, in words."""


class CheckResult(Doc):
    """`python -m trainer check SPEC --json`: what submit learns before it accepts a job.

    Example::

        checked = CheckResult.model_validate_json(output)
        print(checked.segments, checked.rho_floor)
    """

    ok: bool
    model: Line
    params: Count
    rows: Count
    validation_rows: Count
    """Rows, of packed text blocks, that are evaluated before and after training."""
    test_rows: Count | None = None
    """The same of the test set, evaluated once; None: a trainer that does not tell."""
    formats: tuple[str, ...] = ()
    """What the training rows were recognised as, the commonest first; see data.format."""
    steps: Steps | None
    segments: Segments | None
    """None, as `steps`: the daemon decides how many there are (`train.scheduler` is `budget`)."""
    most_steps: Steps | None = None
    """Then: the bound that the owner gave."""
    segment_steps: Steps | None = None
    """Then: steps of a segment."""
    rho_floor: Ratio
    step_flops_full: Annotated[float, Field(gt=0, le=MOST)]
    batch: Steps
    seq: Steps
    target_seq: Count | None = None
    removals: tuple[Removal, ...] = ()
    """What waste the job leaves out, on the board that the check sees; none: a trainer that does not tell."""
    settings: Annotated[tuple[ForeseenSetting, ...], Field(max_length=MOST_SETTINGS)] = ()
    """Those that the planner may choose among; none: the job trains in one way, or a trainer does not tell."""
    notes: tuple[Line, ...] = ()

"""Prices a selection at the shapes of the batches that really come: its share of T_full is not the same at every shape.

A longer target weighs on a decoder and not on its encoder, a longer row on attention and not on a head that is met once. The profiles
that T_full was traced by (trainer/profiling/flop_counter.py) hold the costs of every tensor at their lengths, and these follow the
length by the same formula. What the output embeddings cost follows the labelled tokens where they run on those alone.

A step whose rows run in two parts (trainer/profiling/prompt_split.py) costs what follows from both lengths: the scores of the first part among
themselves, those of the second with both. A sliding window keeps no more of the first part than its width, so on either side of that width there is a
formula of its own.
"""

from collections.abc import Callable, Iterable, Sequence

from carbonsched.errors import CarbonschedError
from carbonsched.model.profile import Profile
from trainer.profiling.flop_counter import FullStepFlops, Shape, labelled_tokens
from trainer.profiling.length_fit import Key
from trainer.selection.cost_model import CostModel

_REMEMBERED = 64
"""Selections whose costs are cached."""


class ShapedCosts:
    """Costs of selections at any batch shape.

    Example::

        costs = ShapedCosts()
        full = FullStepFlops(lambda shape: costs.note(shape, profile(model, *shape[:3])).full_flops)
        share = costs.ratio(("lm_head.weight",), [Shape(4, 128)], full)
    """

    def __init__(self) -> None:
        self._rows: dict[Key, int] = {}
        self._models: dict[Key, CostModel] = {}
        self._found: dict[tuple[str, ...], dict[Key, float]] = {}
        self._heads: dict[tuple[str, ...], float] = {}
        self._labelled: tuple[int, CostModel, CostModel] | None = None
        """Labelled tokens of a batch, costs of a step with them, and of one without."""
        self._split: _SplitCosts | None = None

    def note_labelled(self, labelled: int, profile: Profile, without: Profile) -> None:
        """Learn the cost of a labelled token from two profiles of one shape, with so many in the batch and with none."""
        self._labelled = labelled, CostModel.of(profile), CostModel.of(without)

    def note_split(self, trace: Callable[[Shape], Profile], windows: Sequence[int]) -> None:
        """Price steps whose rows run in two parts too, by profiles of such steps; windows: widths of the model's sliding windows."""
        self._split = _SplitCosts(self, trace, windows)

    def note(self, shape: Shape, profile: Profile) -> Profile:
        """Keep a profile at `shape`; returns it."""
        key = (shape.seq, shape.target_seq)
        self._rows[key], self._models[key] = shape.batch, CostModel.of(profile)
        return profile

    def flops(self, names: Sequence[str], shape: Shape, full: FullStepFlops) -> float:
        """FLOPs of a step that trains `names`, on a batch of `shape`."""
        if shape.gradient is not None and shape.gradient < shape.seq:
            if self._split is None:
                raise CarbonschedError("no step in two parts was profiled")
            return self._split.flops(names, shape, shape.gradient)
        weights = full.weights(shape)
        body = shape.batch * sum(w * self._per_row(tuple(names), key) for key, w in weights.items())
        return (
            body if self._labelled is None else body + labelled_tokens(shape) * self.per_label(tuple(names))
        )

    def per_label(self, names: tuple[str, ...]) -> float:
        """FLOPs of one labelled token in the output embeddings if `names` are trained."""
        if self._labelled is None:
            return 0.0
        if names not in self._heads:
            labelled, whole, without = self._labelled
            self._heads[names] = (whole.flops(names) - without.flops(names)) / labelled
        return self._heads[names]

    def ratio(self, names: Sequence[str], shapes: Iterable[Shape], full: FullStepFlops) -> float:
        """Cost of batches of all these shapes ÷ their T_full."""
        shapes = list(shapes)
        return sum(self.flops(names, shape, full) for shape in shapes) / full.total(shapes)

    def _per_row(self, names: tuple[str, ...], key: Key) -> float:
        if names not in self._found and len(self._found) >= _REMEMBERED:
            self._found.clear()
            self._heads.clear()
        found = self._found.setdefault(names, {})
        if key not in found:
            found[key] = self._models[key].flops(names) / self._rows[key]
        return found[key]


class SharePrices:
    """Cost of steps over some batches in which a share of the tokens has gradient.

    Example::

        prices = SharePrices(costs, full, batches.shapes_ahead(nominal, 0, 100)[0])
        ratio = prices.ratio(names, share=0.25)
    """

    def __init__(self, costs: ShapedCosts, full: FullStepFlops, shapes: Sequence[Shape]) -> None:
        self._costs, self._full, self._shapes = costs, full, shapes
        self._total = full.total(shapes)

    def ratio(self, names: Sequence[str], share: float) -> float:
        """Cost ÷ T_full; constant below the share that the labels require."""
        return sum(self._costs.flops(names, s.cut(share), self._full) for s in self._shapes) / self._total

    def cheapest(self, names: Iterable[str], share: float) -> str:
        """The tensor that alone costs least, on the first of the batches."""
        at = self._shapes[0].cut(share)
        return min(names, key=lambda name: self._costs.flops((name,), at, self._full))

    def realised(self, share: float) -> float:
        """The share that is really reached if `share` is wanted."""
        trained, tokens = trained_tokens([shape.cut(share) for shape in self._shapes])
        return trained / tokens if tokens else share


def trained_tokens(shapes: Iterable[Shape]) -> tuple[int, int]:
    """(real tokens with gradient, all real tokens) of the batches whose rows may run in two parts."""
    trained = tokens = 0
    for shape in shapes:
        if shape.ends is not None:
            trained += shape.ends.counts[(shape.gradient or shape.seq) - 1]
            tokens += shape.ends.counts[-1]
    return trained, tokens


class _SplitCosts:
    """Costs of steps whose rows run in two parts; a shape's two lengths are those of the parts."""

    def __init__(self, whole: ShapedCosts, trace: Callable[[Shape], Profile], windows: Sequence[int]) -> None:
        self._whole, self._trace, self._windows = whole, trace, windows
        self._found: dict[tuple[bool, ...], tuple[ShapedCosts, FullStepFlops]] = {}

    def flops(self, names: Sequence[str], shape: Shape, gradient: int) -> float:
        parts = Shape(shape.batch, shape.seq - gradient, gradient, shape.labelled)
        side = self._side(parts.seq)
        if side not in self._found:
            self._found[side] = self._formula(side)
        costs, full = self._found[side]
        return costs.flops(names, parts, full)

    def _side(self, first: int) -> tuple[bool, ...]:
        """For each window, whether the first part fills it."""
        return tuple(first >= width - 1 for width in self._windows)

    def _formula(self, side: tuple[bool, ...]) -> tuple[ShapedCosts, FullStepFlops]:
        costs = ShapedCosts()
        costs._labelled = self._whole._labelled

        def trace(parts: Shape) -> float:
            rest = parts.target_seq or 0
            if self._side(parts.seq) != side:
                raise CarbonschedError("another formula holds there")
            at = Shape(parts.batch, parts.seq + rest, None, parts.labelled, rest)
            return costs.note(parts, self._trace(at)).full_flops

        return costs, FullStepFlops(trace, None if costs._labelled is None else 0.0, parts=True)

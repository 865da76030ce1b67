"""Predicts FLOPs at lengths that were not traced, once the traced lengths show which formula they follow.

With attention the formula is a polynomial of degree two in the length, which is enough for most models. Layers that work in chunks (state
spaces, the delta rule, some sparse attention) pad a row to a multiple of their chunk: a polynomial of the length and the padded length. No
config tells reliably which one holds, so it is tested: a formula is accepted once it fits one length more than it has unknowns.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Key = tuple[int, int | None]
"""Tokens per row, and those that an encoder-decoder writes."""
Weights = Mapping[Key, float]
"""Traced length → weight: FLOPs are the weighted sum of theirs."""

CHUNKS = tuple(2**n for n in range(1, 13))
"""Chunk sizes that are tried."""
MOST = 48
"""Lengths that are traced at most of a model that follows no formula here."""
_BEYOND = 3
"""Lengths outside the traced range that are traced as they are needed; after that one far ahead is."""
_EXACT = 1e-7
"""Counts are integers: a formula differs by rounding only, or it is the wrong one."""

_Rows = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(slots=True)
class LengthFit:
    """The traced lengths, and what follows from them.

    Example:
        >>> fit = LengthFit()
        >>> for length in (10, 20, 30, 25):
        ...     fit.add((length, None), 7.0 * length + length**2)
        >>> weights = fit.weights((15, None))
        >>> round(sum(w * fit.known[key] for key, w in weights.items()), 6)
        330.0
    """

    parts: bool = False
    """Whether lengths are those of the two parts of a row: the second attends to both."""
    known: dict[Key, float] = field(default_factory=dict)
    """FLOPs of one row."""
    unreachable: set[Key] = field(default_factory=set)
    """Lengths that the model does not accept."""
    _beyond: int = 0
    _found: dict[Key, Weights] = field(default_factory=dict)
    _open: dict[int, bool] = field(default_factory=dict)
    """By chunk size, 0 for none: whether the formula fits everything known, and one length more than it has unknowns."""

    def add(self, key: Key, flops: float) -> None:
        self.known[key] = flops
        self._found.clear()
        self._open.clear()

    def weights(self, key: Key) -> Weights | None:
        """None: `next_trace` has to be traced first."""
        if key in self.known:
            return {key: 1.0}
        if key not in self._found and (weights := self._predict(key)) is not None:
            self._found[key] = weights
        return self._found.get(key)

    def next_trace(self, key: Key) -> Key:
        """The next length to trace for `key`: `key` itself, or one that shows whether a formula holds."""
        plain = self._span(0, key) is not None and self._fits(0) is not False
        if plain and self._fits(0) is None:
            return self._unless_tried(self._between(), key)
        if plain:
            self._beyond += 1
            if self._beyond > _BEYOND:
                return self._unless_tried(self._ahead(key), key)
        return key

    def _unless_tried(self, probe: Key, key: Key) -> Key:
        return key if probe in self.known or probe in self.unreachable else probe

    @property
    def exhausted(self) -> bool:
        """Whether no more is traced: other lengths are read off the nearest ones."""
        return len(self.known) >= MOST

    def nearest(self, key: Key) -> Weights:
        """Interpolate between the two neighbours; if there are none, or for lengths of two parts, scale the nearest by tokens."""
        lower = max((k for k in self.known if k[0] <= key[0]), default=None)
        upper = min((k for k in self.known if k[0] >= key[0]), default=None)
        if key[1] is None and lower is not None and upper is not None:
            at = (key[0] - lower[0]) / max(upper[0] - lower[0], 1)
            return {lower: 1 - at, upper: at}
        near = min(self.known, key=lambda k: abs(k[0] - key[0]) + abs((k[1] or 0) - (key[1] or 0)))
        return {near: _tokens(key) / _tokens(near)}

    def _predict(self, key: Key) -> Weights | None:
        if self._fits(0) is not False:
            span = self._span(0, key) if self._fits(0) else None
            return span if span is not None and self._covers(key) else None
        found: Weights | None = None
        for chunk in CHUNKS:
            if (fits := self._fits(chunk)) is False:
                continue
            span = self._span(chunk, key) if fits else None
            if span is None or (found is not None and not self._agree(found, span)):
                return None
            found = span
        return found

    def _fits(self, chunk: int) -> bool | None:
        """Whether a formula holds on everything known; None: too little is known to tell."""
        if chunk not in self._open:
            rows = _terms(self.known, chunk, self.parts)
            flops = np.array(list(self.known.values()))
            if not flops.size or not flops.all():
                return None
            relative = rows / flops[:, None]
            solution, _, rank, _ = np.linalg.lstsq(relative, np.ones(len(rows)), rcond=None)
            if np.abs(relative @ solution - 1).max() > _EXACT:
                self._open[chunk] = False
            elif len(rows) > rank:
                self._open[chunk] = True
        return self._open.get(chunk)

    def _span(self, chunk: int, key: Key) -> Weights | None:
        """`key` in the terms of the known lengths; None: they do not determine it."""
        if len(self.known) < 2:
            return None
        rows, wanted = _terms(self.known, chunk, self.parts), _terms([key], chunk, self.parts)[0]
        weights, _, _, _ = np.linalg.lstsq(rows.T, wanted, rcond=None)
        if not np.allclose(rows.T @ weights, wanted, rtol=1e-9, atol=1e-9):
            return None
        return dict(zip(self.known, map(float, weights), strict=True))

    def _agree(self, one: Weights, other: Weights) -> bool:
        a, b = (sum(w * self.known[k] for k, w in weights.items()) for weights in (one, other))
        return abs(a - b) <= 1e-6 * abs(a)

    def _covers(self, key: Key) -> bool:
        """Whether it lies between traced lengths. Lengths of two parts need not: what begins beyond, a window, is priced separately."""
        if self.parts:
            return True
        return all(low <= n <= high for n, (low, high) in zip(_numbers(key), self._bounds(), strict=True))

    def _bounds(self) -> list[tuple[int, int]]:
        return [(min(ns), max(ns)) for ns in zip(*map(_numbers, self.known), strict=True)]

    def _between(self) -> Key:
        """An odd length in the middle of the known ones: a multiple of no chunk."""
        middle = [(low + high) // 2 | 1 for low, high in self._bounds()]
        return middle[0], middle[1] if len(middle) > 1 else None

    def _ahead(self, key: Key) -> Key:
        """A length twice as far from the known ones as `key`."""
        far = [
            2 * n | 1 if n > high else max(n // 2, 1) if n < low else n
            for n, (low, high) in zip(_numbers(key), self._bounds(), strict=True)
        ]
        return far[0], far[1] if len(far) > 1 else None


def _numbers(key: Key) -> tuple[int, ...]:
    return (key[0],) if key[1] is None else (key[0], key[1])


def _tokens(key: Key) -> int:
    return key[0] + (key[1] or 0)


def _terms(keys: Iterable[Key], chunk: int, parts: bool = False) -> _Rows:
    """One row per length, scaled to thousands of tokens, so that squares and ones have similar size."""
    rows = []
    for seq, target in keys:
        s, u = seq / 1000, (target or 0) / 1000
        row = [s, s * s, u, u * (s + u)] if parts else [1.0, s, s * s]
        if target is not None and not parts:
            row += [u, u * u, s * u]
        if chunk:
            padded = -(-seq // chunk) * chunk / 1000
            row += [padded, padded * padded]
        rows.append(row)
    return np.array(rows)

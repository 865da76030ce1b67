"""Enumerates the backward passes a selection can need: which operator groups run, and which tensors that opens.

A state is a set of groups that some selection runs exactly: the closure under union of the tensors' own sets. Along a
chain there is one for each depth, and where branches part (q, k, v) a few for each block.

Cross-attention would make that 4 to the power of the decoder's blocks: the way to one block's k leads on to the encoder
only, so each block's may run or not, whatever the others do. Such a group, which a few tensors need early and all the
others need much later, is *folded*: those tensors form a `Branch` that is bought as a whole, the group's FLOPs as its
price, until a state runs the group anyway. No group is folded for two branches, so costs still add up exactly.
"""

from dataclasses import dataclass
from itertools import pairwise

from carbonsched.errors import CarbonschedError
from trainer.selection.cost_model import CostModel, bits

MAX_STATES = 50_000
FOLD_GAP = 8
"""Kinds of tensors that a group must skip to be folded: less is cheaper as states of its own."""
FOLD_KINDS = 4


@dataclass(frozen=True, slots=True)
class Branch:
    """Tensors that open together, some of them for the price of groups that nothing else needs yet.

    Example:
        >>> Branch(tensors=(3, 4), groups=0b100)
        Branch(tensors=(3, 4), groups=4)
    """

    tensors: tuple[int, ...]
    groups: int
    """The folded groups of all of them."""


@dataclass(frozen=True, slots=True)
class State:
    """One set of operator groups that some selection runs exactly.

    Example::

        selector = Selector(profile)
        cheapest = min(selector.states, key=lambda state: state.cost)
        names = [selector.model.names[i] for i in cheapest.opened]
    """

    groups: int
    """Operator groups that run, as bits."""
    cost: int
    """Forward + these groups."""
    parent: int
    """An earlier state with fewer groups, whose tables this one's extend; -1: none."""
    opened: tuple[int, ...]
    """Tensors that may be bought for their dw alone here, and not yet in the parent."""
    branches: tuple[Branch, ...]
    """Branches that open here, and not yet in the parent."""


def enumerate_states(model: CostModel, candidates: list[int]) -> list[State]:
    """Every state, those with fewer groups first, over the tensors that may be chosen.

    Sets that all later ones contain add nothing by union, so only those of about one block are ever alive and the work
    stays linear in depth. Raises CarbonschedError where branches allow too many patterns.
    """
    own = {i: model.above[i] for i in candidates}
    found = _branches(own)
    folded = 0
    for branch in found:
        folded |= branch.groups
        for i in branch.tensors:
            own[i] &= ~branch.groups
    in_branch = {i: b for b, branch in enumerate(found) for i in branch.tensors}
    members: dict[int, list[int]] = {}
    for i in candidates:
        members.setdefault(own[i], []).append(i)
    kinds = sorted(members, key=int.bit_count)
    made: list[State] = []
    for groups, parent, new in _ordered(kinds, folded):
        tensors = [i for k in new for i in members[kinds[k]]]
        shut = [b for b in {in_branch[i] for i in tensors if i in in_branch} if found[b].groups & ~groups]
        made.append(
            State(
                groups=groups,
                cost=model.forward + model.group_cost(groups),
                parent=parent,
                opened=tuple(sorted(i for i in tensors if in_branch.get(i) not in shut)),
                branches=tuple(found[b] for b in sorted(shut)),
            )
        )
    return made


def closure(sets: list[int]) -> set[int]:
    """All unions of one or more of `sets` (bits), which are sorted by size."""
    common = _suffix_intersections(sets)
    found: set[int] = set()
    alive: set[int] = set()
    for k, own in enumerate(sets):
        new = {own, *(union | own for union in alive)} - found
        found |= new
        alive |= new
        if len(found) > MAX_STATES:
            raise CarbonschedError(
                "the model's branches allow too many patterns; restrict the tensors to choose from"
            )
        if k + 1 < len(sets):
            alive = {union for union in alive if union & ~common[k + 1]}
    return found


def _ordered(kinds: list[int], folded: int) -> list[tuple[int, int, list[int]]]:
    """(groups, parent, kinds that are open here and not in the parent) of every union of `kinds`."""
    unions = sorted(closure(kinds), key=int.bit_count)
    common = _suffix_intersections(unions)
    made: list[tuple[int, int, list[int]]] = []
    opened: list[int] = []
    alive: list[int] = []
    settled, first, last = 0, 0, 0  # kinds before `first` are open in every state from here on
    for s, groups in enumerate(unions):
        while last < len(kinds) and kinds[last].bit_count() <= groups.bit_count():
            last += 1
        while first < last and not kinds[first] & ~common[s]:
            settled |= 1 << first
            first += 1
        here = settled
        for k in range(first, last):
            if not kinds[k] & ~groups:
                here |= 1 << k
        # a parent with other folded groups has bought its branches at other prices
        below = [p for p in alive if not unions[p] & ~groups and not (unions[p] ^ groups) & folded]
        parent = max(below, key=lambda p: opened[p].bit_count(), default=-1)
        made.append((groups, parent, bits(here & ~(opened[parent] if parent >= 0 else 0))))
        opened.append(here)
        if s + 1 < len(unions):
            done = [p for p in alive if not unions[p] & ~common[s + 1]]
            base = max(done, key=lambda p: unions[p].bit_count(), default=None)
            alive = [*(p for p in alive if p not in done or p == base), s]
    return made


def _branches(own: dict[int, int]) -> list[Branch]:
    """Groups worth folding, as branches; tensors of one branch need the same groups but for the folded ones."""
    kinds = sorted(set(own.values()), key=int.bit_count)
    near: dict[int, set[int]] = {}  # group → the kinds that need it early
    for g in bits(_union(kinds)):
        members = [k for k, kind in enumerate(kinds) if kind >> g & 1]
        gaps = [later - k for k, later in pairwise(members)]
        if gaps and max(gaps) > FOLD_GAP:
            early = members[: gaps.index(max(gaps)) + 1]
            if len(early) <= FOLD_KINDS:
                near[g] = set(early)
    parts: list[tuple[set[int], int]] = []
    for g, wanting in near.items():
        joined, groups = wanting, 1 << g
        for part in [p for p in parts if p[0] & joined]:
            parts.remove(part)
            joined, groups = joined | part[0], groups | part[1]
        parts.append((joined, groups))
    found = []
    for joined, groups in parts:
        rest = {kinds[k] & ~groups for k in joined}
        if len(rest) == 1:
            wanted = {kinds[k] for k in joined}
            found.append(Branch(tuple(sorted(i for i in own if own[i] in wanted)), groups))
    return found


def _union(sets: list[int]) -> int:
    union = 0
    for s in sets:
        union |= s
    return union


def _suffix_intersections(sets: list[int]) -> list[int]:
    common = sets[:]
    for k in range(len(sets) - 2, -1, -1):
        common[k] &= common[k + 1]
    return common

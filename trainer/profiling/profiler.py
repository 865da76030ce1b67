"""Measures the FLOPs profile of a model: what every tensor costs to train, exact for every selection.

One real forward and backward pass on meta tensors, everything trained, runs under torch's FlopCounterMode. Autograd's
graph says which operator of the backward pass serves which tensors: an operator inside a node belongs to the gradient
edges its result flows into, and runs exactly when a tensor that gets trained lies beneath one of those edges. So

    cost(S) = forward + Σ over operators of flops · [S meets the tensors beneath the operator]

and this is no approximation: autograd builds a node, and computes a node's edge, under just that condition. Operators
with the same tensors beneath them merge. A group above one tensor only is that tensor's dw; along a chain the other
groups are nested and add up to the chain formula cost(S) = fwd + max D_i + Σ dw_i; where branches part (q, k, v; gate,
up; encoder beside decoder) they are not, and stand in `Profile.patterns` (see trainer/selection/cost_model.py).

Nothing is written per architecture. Traced costs are seconds even for 80 blocks, so no block is taken for another.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from carbonsched.errors import CarbonschedError, InputError
from carbonsched.model.profile import Profile, TensorCost
from trainer.profiling import attention_flops, recurrent_flops
from trainer.profiling.batch_form import BatchForm, forward_names, loss_of
from trainer.profiling.labelled_head import traced_head
from trainer.profiling.meta_model import meta_twin, traceable
from trainer.profiling.prompt_split import traced_split
from trainer.selection.cost_model import bits


def profile(
    model: Any,
    batch: int,
    seq: int,
    target_seq: int | None = None,
    attn: str | None = None,
    name: str | None = None,
    form: BatchForm | None = None,
    labelled: int | None = None,
    gradient: int | None = None,
) -> Profile:
    """Profile `model` (loaded anywhere, or from `meta_model`) at `batch` sequences of `seq` tokens.

    Encoder-decoders read `seq` tokens and write `target_seq` (default `seq`); decoders hold prompt and answer in `seq`.
    `attn` defaults to what the model is set to. `form`: what the model reads, where that is other than tokens with a label
    each (`seq` is then the length that `sizes_of` gives). `labelled`: tokens of a row that alone run through the output embeddings
    (trainer/profiling/labelled_head.py); all do without it. `gradient`: last tokens of a row that gradient flows through, the others run
    beforehand (trainer/profiling/prompt_split.py). Tensors come shallowest first, in the order in which the backward pass
    reaches them, ties once, named as in `named_parameters()`. Raises InputError for a shape that the model cannot take, and for a
    model that cannot be traced.
    """
    config = getattr(model, "config", None)
    if form is None:
        target_seq = _check_shape(config, batch, seq, target_seq)
    gradient = None if gradient is None or gradient >= seq else gradient
    inputs = token_batch(batch, seq, target_seq) if form is None else form.build(batch, seq, target_seq)
    attn = attn or getattr(config, "_attn_implementation", None) or "eager"
    twin = meta_twin(model, attn)
    names = [n for n, _ in twin.named_parameters()]
    with traced_split(twin, gradient), traced_head(twin, None if labelled is None else labelled * batch):
        trace = _trace(twin, inputs, attn)
    missing = [names[i] for i in range(len(names)) if i not in trace.order]
    notes = []
    if missing:
        notes.append(f"left out, this loss gives them no gradient: {', '.join(missing)}")
    if any("expert" in n for n in names):
        notes.append("experts counted at the number each token is routed to; the load of one expert varies")
    tensors, patterns = _tensor_costs(
        [(names[i], p.numel()) for i, p in enumerate(twin.parameters())], trace.order, trace.groups
    )
    return Profile(
        model=name
        or getattr(config, "name_or_path", None)
        or getattr(config, "model_type", type(model).__name__),
        params=sum(p.numel() for p in twin.parameters()),
        forward_flops=trace.forward,
        full_flops=trace.forward + trace.backward,
        tensors=tensors,
        batch=batch,
        seq=seq,
        target_seq=target_seq,
        labelled=labelled,
        gradient=gradient,
        attn=attn,
        dtype=_dtype_name(twin),
        patterns=patterns,
        notes=tuple(notes),
    )


def token_batch(batch: int, seq: int, target_seq: int | None) -> dict[str, torch.Tensor]:
    """A batch on the meta device, without padding."""

    def tokens(length: int) -> torch.Tensor:
        return torch.zeros(batch, length, dtype=torch.long, device="meta")

    return {
        "input_ids": tokens(seq),
        "attention_mask": tokens(seq) + 1,
        "labels": tokens(target_seq or seq),
    }


def run_forward(model: Any, inputs: dict[str, Any]) -> Any:
    """The forward pass of a model on the meta device. Raises InputError where it needs data."""
    if "use_cache" in (forward_names(model) or ()):
        inputs = inputs | {"use_cache": False}
    try:
        return model(**inputs)
    except InputError:
        raise
    except Exception as e:
        first = re.split(r"[\n.,;]", str(e).strip(), maxsplit=1)[0][:120] or "no message"
        raise InputError(
            "model",
            f"{type(model).__name__} cannot be profiled: its forward pass fails without data ({type(e).__name__}: {first})",
            "its cost depends on values, not on shapes alone: train it without carbonsched, or use another architecture",
        ) from e


WHOLE = tuple(
    getattr(torch.ops.aten, name).default
    for name in ("silu_backward", "mish_backward", "native_channel_shuffle")
)
"""Operators with a kernel of their own that a FlopCounterMode would take apart: a counted step would round otherwise than
any other step. (Overloads, which its registry never counts by.)"""

_GROUPED = ("_grouped_mm", "_scaled_grouped_mm")

CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default


def make_counter() -> FlopCounterMode:
    """A FlopCounterMode that also knows what torch 2.13 leaves out: attention on the CPU, grouped experts, products in
    place (`addmm_`) and products of a wider dtype than their factors (`addmm` and `mm` with `out_dtype`: it fails there).
    And one that heeds `groups` in a convolution's backward pass, where torch counts that many times too much.

    For counting real steps by the same rules as the profile (pytorch#195460). FLOPs: 2 per multiply-accumulate.
    """
    aten = torch.ops.aten
    missing = {
        **attention_flops.formulas(),
        **recurrent_flops.formulas(),
        **{getattr(aten, name): _grouped_mm for name in _GROUPED if hasattr(aten, name)},
        **dict.fromkeys((aten.mm, aten.bmm, aten._int_mm), _product),
        **dict.fromkeys((aten.addmm, aten.addmm_, aten.baddbmm, aten.baddbmm_), _added_product),
        **dict.fromkeys((aten.addbmm, aten.addbmm_, aten._addmm_activation), _added_product),
        aten.mv: _vector_product,
        **dict.fromkeys((aten.addmv, aten.addmv_), _added_vector_product),
        aten.convolution_backward: _convolution_backward,
        **dict.fromkeys(WHOLE, _nothing),
    }
    counter = FlopCounterMode(display=False, custom_mapping=missing)
    counter.mod_tracker = _OneModule()  # type: ignore[assignment]
    return counter


class _OneModule:
    """In place of the tracker of modules, whose hooks took a sixth of the time: nobody asks which module a FLOP is of."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def _nothing(*args: Any, **kwargs: Any) -> int:
    return 0


def _product(a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * math.prod(map(int, a)) * int(b[-1])


def _added_product(to: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> int:
    return _product(a, b)


def _vector_product(a: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * math.prod(map(int, a))


def _added_vector_product(to: Any, a: Any, *args: Any, **kwargs: Any) -> int:
    return _vector_product(a)


def _grouped_mm(a: Any, b: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    # one side is ragged: rows of a (2-D × 3-D), or the inner dimension (2-D × 2-D); either way each row is met once
    if len(a) == 2:
        return int(2 * a[0] * a[1] * b[-1])
    return int(2 * a[-3] * a[-2] * a[-1] * b[-1]) if len(b) == 3 else int(2 * a[-2] * a[-1] * b[-1])


def _convolution_backward(
    grad: Any,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    *args: Any,
    **kwargs: Any,
) -> int:
    # each gradient meets every weight at every place once, as the output does; args: output padding, groups, output mask
    one = conv_flop_count(x, weight, grad, transposed)
    return int(one * sum(args[2][:2]))


class _Trace:
    """What one pass showed: forward and backward FLOPs, tensors in order of arrival, and the groups of operators.

    `groups` maps a set of tensors (bit i: the i-th of `named_parameters()`) to the backward FLOPs that run when any of
    them is trained.
    """

    def __init__(self, forward: int, backward: int, order: list[int], groups: dict[int, int]) -> None:
        self.forward, self.backward, self.order, self.groups = forward, backward, order, groups


def _trace(model: Any, inputs: dict[str, torch.Tensor], attn: str) -> _Trace:
    index = {id(p): i for i, p in enumerate(model.parameters())}
    with make_counter() as count:
        with traceable(attn):
            loss: Any = loss_of(run_forward(model, inputs))
        forward = count.get_total_flops()
        nodes = _topological(loss.grad_fn)
        beneath = _beneath(nodes, index)
        attribution = _Attribution(count, nodes, beneath)
        with attribution:
            loss.backward()
        backward = count.get_total_flops() - forward
    if sum(attribution.groups.values()) != backward:
        raise CarbonschedError(
            "the backward FLOPs do not add up over the operators; profile with another attn"
        )
    order = [index[id(n.variable)] for n in attribution.visited if hasattr(n, "variable")]
    return _Trace(forward, backward, order, attribution.groups)


def _topological(root: Node) -> list[Node]:
    """Every node that the backward pass reaches from `root`, children before parents (in the graph's direction)."""
    order: list[Node] = []
    seen: set[Node] = {root}
    stack: list[tuple[Node, int]] = [(root, 0)]
    while stack:
        node, at = stack.pop()
        edges = node.next_functions
        while at < len(edges) and (edges[at][0] is None or edges[at][0] in seen):
            at += 1
        if at == len(edges):
            order.append(node)
            continue
        stack.append((node, at + 1))
        if (child := edges[at][0]) is not None:
            seen.add(child)
            stack.append((child, 0))
    return order


def _beneath(nodes: list[Node], index: dict[int, int]) -> dict[Node, int]:
    """For each node the tensors it leads to, as bits."""
    found: dict[Node, int] = {}
    for node in nodes:
        variable = getattr(node, "variable", None)
        bits = 0 if variable is None else 1 << index[id(variable)]
        for child, _ in node.next_functions:
            if child is not None:
                bits |= found[child]
        found[node] = bits
    return found


class _Attribution(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives the FLOPs of every operator in the backward pass to the edges of its node which its result flows into."""

    def __init__(self, count: FlopCounterMode, nodes: list[Node], beneath: dict[Node, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.groups: dict[int, int] = {}
        self.visited: list[Node] = []
        self._count = count
        self._beneath = beneath
        self._flops: list[int] = []
        self._sources: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []
        for node in nodes:
            node.register_prehook(self._enter(node))
            if not hasattr(node, "variable"):
                node.register_hook(self._leave(node))

    def _enter(self, node: Node) -> Any:
        def enter(grads: Any) -> None:
            self.visited.append(node)
            self._flops, self._sources, self._alive = [], {}, []

        return enter

    def _leave(self, node: Node) -> Any:
        def leave(grads: Any, _: Any) -> None:
            if not self._flops:
                return
            edges = [
                (self._beneath[child] if child is not None else 0, self._sources.get(id(grad), 0))
                for (child, _), grad in zip(node.next_functions, grads, strict=True)
            ]
            for op, flops in enumerate(self._flops):
                served = 0
                for tensors, sources in edges:
                    if sources >> op & 1:
                        served |= tensors
                # an operator whose result cannot be followed is taken to serve the whole node
                served = served or self._beneath[node]
                self.groups[served] = self.groups.get(served, 0) + flops
            self._flops, self._sources, self._alive = [], {}, []

        return leave

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self._count.get_total_flops()
        out = func(*args, **(kwargs or {}))
        flops = self._count.get_total_flops() - before
        sources = 0
        for x in tree_iter((args, kwargs)):
            if isinstance(x, torch.Tensor):
                sources |= self._sources.get(id(x), 0)
        # this one operator does only what is asked for: each gradient is a product of the same size, the bias's is none
        asked = [x for x in out[:2] if x is not None] if func is CONVOLUTION_BACKWARD else []
        for x in asked:
            self._note(x, sources | self._counted(flops // len(asked)))
        if flops and not asked:
            sources |= self._counted(flops)
        for x in tree_iter(out) if sources else ():
            if isinstance(x, torch.Tensor) and not any(x is known for known in asked):
                self._note(x, sources)
        return out

    def _counted(self, flops: int) -> int:
        """A new operator's FLOPs; returns its bit."""
        self._flops.append(flops)
        return 1 << len(self._flops) - 1

    def _note(self, x: torch.Tensor, sources: int) -> None:
        self._sources[id(x)] = self._sources.get(id(x), 0) | sources
        self._alive.append(x)  # so that no other tensor gets its id


def _tensor_costs(
    sizes: Sequence[tuple[str, int]], order: Sequence[int], groups: dict[int, int]
) -> tuple[tuple[TensorCost, ...], dict[str, Any]]:
    """Profile tensors and patterns from traced groups.

    sizes: (name, numel) by parameter number; order: parameter numbers as the backward pass reached them; groups: FLOPs
    by set of parameters (bit i: parameter number i).
    """
    dw = [groups.get(1 << i, 0) for i in range(len(sizes))]
    depth = [0] * len(sizes)
    above = {beneath: flops for beneath, flops in groups.items() if beneath & (beneath - 1)}
    for beneath, flops in above.items():
        for i in bits(beneath):
            depth[i] += flops
    ranked = sorted(order, key=lambda i: depth[i])
    position = {i: at for at, i in enumerate(ranked)}
    tensors = tuple(
        TensorCost(name=sizes[i][0], numel=sizes[i][1], depth_flops=depth[i], dw_flops=dw[i]) for i in ranked
    )
    rows = []
    for beneath, flops in above.items():
        members = {position[i] for i in bits(beneath)}
        start = len(ranked)
        while start - 1 in members:
            start -= 1
        rows.append({"flops": flops, "from": start, "also": sorted(m for m in members if m < start)})
    if not any(row["also"] for row in rows):
        return tensors, {}
    return tensors, {"groups": sorted(rows, key=lambda row: (row["from"], row["also"]))}


_BOUND = {"seq": "max_length", "target_seq": "target_length"}


def _check_shape(config: Any, batch: int, seq: int, target_seq: int | None) -> int | None:
    for field, value in (("batch", batch), ("seq", seq), ("target_seq", target_seq)):
        if value is not None and value < 1:
            raise InputError(field, f"must be at least 1, is {value}")
    two_sided = getattr(config, "is_encoder_decoder", False)
    if not two_sided and target_seq is not None:
        raise InputError(
            "target_seq",
            f"{getattr(config, 'model_type', 'the model')} is decoder-only",
            "leave it out; seq is prompt and answer together",
        )
    # T5 bounds nothing by n_positions; learned positions do
    longest = getattr(config, "max_position_embeddings", None)
    for field, value in (("seq", seq), ("target_seq", target_seq)):
        if longest is not None and value is not None and value > longest:
            hint = f"shorten it; of a job it is the longest row, which data.{_BOUND[field]} bounds"
            raise InputError(field, f"is {value}, the model takes at most {longest} tokens", hint)
    return target_seq or (seq if two_sided else None)


def _dtype_name(model: nn.Module) -> str:
    names = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    return names.get(dtype, str(dtype).removeprefix("torch."))

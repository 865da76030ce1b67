"""Rebuilds what stands around a model (DDP, FSDP2, torch.compile) each time other tensors get trained.

DDP decides when it is built which gradients it reduces: a tensor unfrozen later would be left out, without an error, and
the ranks would part. It is built anew at each selection, which also spares the traffic of what is frozen. FSDP2 shards
each parameter by itself and follows `requires_grad` at its next all-gather, but only on the sharded parameters, which are
not the model's while it is unsharded; and it fixes a group's reduction dtype at the first forward pass from what is trained
then. torch.compile keeps a graph for each selection, and after eight gives up compiling: it starts anew too.

In one process all of it is free. What ranks agree on is in trainer/distributed/ranks.py.
"""

import gc
import warnings
from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from carbonsched.errors import InputError
from trainer.distributed.ranks import Ranks
from trainer.profiling.meta_model import meta_twin

_KEPT = (
    "device_ids",
    "output_device",
    "dim",
    "process_group",
    "find_unused_parameters",
    "gradient_as_bucket_view",
    "static_graph",
    "skip_all_reduce_unused_params",
    "batched_grad_copy",
)
"""Arguments of DistributedDataParallel that it keeps under their own names, in one torch release or another."""


def train_only(model: nn.Module, names: tuple[str, ...], among: Collection[str]) -> None:
    """Of `among` train `names`. Gradients go first: AdamW would still move a frozen tensor that has a stale one."""
    chosen = set(names)
    for name, parameter in model.named_parameters():
        parameter.grad = None
        if name in among:
            parameter.requires_grad_(name in chosen)


class Wrapping:
    """What stands around a model that is trained, and depends on which tensors are.

    Example::

        wrapping = Wrapping(model, optimizer, ranks(), args, twin)
        wrapping.reshard()
        train_only(model, selected, among=trainable)
        wrapping.rebuild()
    """

    def __init__(
        self, model: nn.Module, optimizer: Any, ranks: Ranks, args: TrainingArguments, twin: nn.Module | None
    ) -> None:
        """To be made when training begins, everything trainable. twin: what `twin_before_sharding` gave.

        Raises InputError where the model is wrapped in what cannot be steered.
        """
        compiled = [m for m in model.modules() if m._compiled_call_impl is not None]
        self._compiled = bool(args.torch_compile or compiled)
        self._sharded = list(_sharded(model)) if ranks.size > 1 else []
        self._ddp = _find_ddp(model) if ranks.size > 1 and not self._sharded else []
        self._trained: frozenset[int] | None = None
        self._model = model
        if ranks.size > 1 and not self._sharded and not self._ddp:
            raise InputError(
                "trainer", f"{ranks.size} processes without DDP or FSDP2", "train with one of these"
            )
        if any(ddp.mixed_precision is not None or ddp._delay_all_reduce_params for ddp in self._ddp):
            raise InputError(
                "trainer", "DDP with mixed_precision or delayed reductions", "use bf16=True instead"
            )
        if args.n_gpu > 1:
            raise InputError(
                "trainer",
                f"nn.DataParallel over {args.n_gpu} GPUs",
                "start it with torchrun, or set CUDA_VISIBLE_DEVICES to one of them",
            )
        if self._sharded:
            _check_names(model, twin)
            _initialise_fsdp(model)
            _fill_state(optimizer)
        if self._compiled:
            # the counter of FLOPs has hooks on all modules; it runs where nothing is compiled
            warnings.filterwarnings("ignore", message=".*global hooks on modules", category=UserWarning)

    def reshard(self) -> None:
        """Reshard: an evaluation may have left parameters gathered, and the optimizer holds the sharded ones."""
        for module in self._sharded:
            module.reshard()

    def rebuild(self) -> None:
        """Make anew what depends on `requires_grad`, after it has changed. Every rank at the same point."""
        trained = frozenset(i for i, p in enumerate(self._model.parameters()) if p.requires_grad)
        if trained == self._trained:
            return
        self._trained = trained
        for ddp in self._ddp:
            _rewrap(ddp)
        if self._compiled:
            torch._dynamo.reset()

    def reset_compiled(self) -> None:
        """Start compiling anew, after a step that was counted: torch.compile has given up the frames that ran under the counter."""
        if self._compiled:
            torch._dynamo.reset()


def twin_before_sharding(model: nn.Module, args: TrainingArguments) -> Any:
    """A copy on the meta device to profile, made before FSDP shards `model`, which cannot be copied then; None without FSDP."""
    return meta_twin(model) if args.fsdp else None


def local_shard(tensor: Any) -> Any:
    """This rank's piece of a DTensor; any other tensor (or value) as it is."""
    return tensor.detach().to_local() if hasattr(tensor, "to_local") else tensor


def replica_count(parameter: Any, ranks: Ranks) -> int:
    """The number of ranks on which the same piece of `parameter` lies."""
    if not hasattr(parameter, "placements"):
        return ranks.size
    mesh, found = parameter.device_mesh, 1
    for i, placement in enumerate(parameter.placements):
        found *= mesh.size(i) if placement.is_replicate() else 1
    return found


def _sharded(model: nn.Module) -> Iterator[Any]:
    from torch.distributed.fsdp import FSDPModule

    return (module for module in model.modules() if isinstance(module, FSDPModule))


def _check_names(model: nn.Module, twin: nn.Module | None) -> None:
    if twin is None:
        raise InputError(
            "trainer", "the callback came too late for FSDP", "give it as Trainer(..., callbacks=[...])"
        )
    known = {name for name, _ in twin.named_parameters()}
    renamed = [name for name, _ in model.named_parameters() if name not in known]
    if renamed:
        raise InputError(
            "trainer",
            f"FSDP renames tensors ({renamed[0]})",
            "leave torch_compile and fsdp_config's activation_checkpointing out; activation_checkpointing=True will do",
        )


def _find_ddp(model: nn.Module) -> list[Any]:
    # a callback is handed the model, not its wrapper, and the Trainer's loop holds on to the wrapper: look for it
    kind = nn.parallel.DistributedDataParallel
    return [x for x in gc.get_objects() if issubclass(type(x), kind) and x.module is model]


def _rewrap(ddp: Any) -> None:
    """Construct it again in place: whoever holds the wrapper keeps holding the right one."""
    model, hooks, buffers = ddp.module, list(ddp._comm_hooks), ddp.broadcast_buffers
    options = {name: getattr(ddp, name) for name in _KEPT if hasattr(ddp, name)}
    if not ddp.bucket_bytes_cap_default:
        options["bucket_cap_mb"] = ddp.bucket_bytes_cap / (1 << 20)
    ddp.logger = ddp.reducer = (
        None  # its buckets are freed and its hooks leave the parameters before others come
    )
    # the weights are the same on every rank, and sending them would hide it if they were not
    ddp.__init__(model, init_sync=False, **options)
    ddp.broadcast_buffers = buffers
    for hook, state in hooks:
        ddp.register_comm_hook(state, hook)


def _initialise_fsdp(model: Any) -> None:
    """FSDP2's own first-forward initialisation, while everything is trainable."""
    from torch.distributed.fsdp import register_fsdp_forward_method

    model.begin_training = lambda: None
    register_fsdp_forward_method(model, "begin_training")
    model.begin_training()
    del model.begin_training
    for module in _sharded(model):
        module.reshard()


def _fill_state(optimizer: Any) -> None:
    """Give every tensor the state of one that is yet to be stepped: torch loads no checkpoint of sharded state with gaps."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    rates = [group["lr"] for group in optimizer.param_groups]
    new = [p for group in optimizer.param_groups for p in group["params"] if p not in optimizer.state]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in new:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    for parameter in new:
        parameter.grad = None
        step = optimizer.state[parameter].get("step")
        if step is not None:
            optimizer.state[parameter]["step"] = step * 0

"""Takes what a Trainer has prepared, and derives the batches to come and the shape to profile at."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from transformers import TrainingArguments
from transformers.trainer_utils import has_length

from carbonsched.errors import InputError
from trainer.data.encoding import TextEncoder
from trainer.data.streams import StreamBatches, StreamWindow, is_stream
from trainer.data.upcoming_batches import Batches, unlabelled
from trainer.distributed.ranks import Ranks
from trainer.importance.gradient_pass import Loss, model_loss
from trainer.job.segment import Schedule
from trainer.methods.prepare import cannot_split
from trainer.methods.registry import method_row
from trainer.profiling.batch_form import BatchForm
from trainer.profiling.flop_counter import Shape
from trainer.profiling.labelled_head import HeadError, LabelledHead
from trainer.profiling.prompt_split import PromptSplit, SplitError
from trainer.training.head_trial import try_head
from trainer.training.host_trainer import HostTrainer
from trainer.training.options import Options
from trainer.training.split_trial import try_split


@dataclass(frozen=True, slots=True)
class Training:
    """What a transformers.Trainer has prepared when its training begins.

    Example::

        training = Training(args, model, trainer.optimizer, trainer.get_train_dataloader(), twin=None)
    """

    args: TrainingArguments
    model: Any
    optimizer: Any
    loader: Any
    twin: Any
    """The result of `twin_before_sharding`: the model before FSDP shards it; None without FSDP."""
    loss: Loss = model_loss
    """What training minimises."""
    window: StreamWindow | None = None
    """The recent batches of a stream; None: rows can be drawn by number."""
    labelled: bool = False
    """Whether labels of -100 are left out of that loss."""
    host: HostTrainer | None = None
    """The Trainer itself; None: another loop calls the callback."""


def coming_batches(training: Training, options: Options, max_steps: int, mine: Ranks) -> Batches:
    """What is known of the batches of a training of `max_steps`. Raises InputError if nothing is."""
    loader, args = training.loader, training.args
    stream = is_stream(loader)
    if stream and training.window is None:
        raise InputError("trainer", "its data set has no length", "use one that can be drawn from by index")
    accumulation: int = args.gradient_accumulation_steps
    batch: int = args.train_batch_size if stream else min(args.train_batch_size, len(loader.dataset))
    batches = (
        len(loader) if has_length(loader) else max_steps * accumulation
    )  # transformers' rule for streams
    per_epoch = max(-(-batches // accumulation), 1)
    length = per_epoch if isinstance(options.segment, str) else options.segment
    schedule = Schedule(max_steps, per_epoch, length)
    two_sided = bool(getattr(getattr(training.model, "config", None), "is_encoder_decoder", False))
    if training.window is not None:
        return StreamBatches(loader, schedule, accumulation, batch, two_sided, mine, training.window)
    own = isinstance(getattr(loader.collate_fn, "__self__", None), TextEncoder)
    return Batches(loader, schedule, accumulation, batch, two_sided, mine, own_rows=own)


def nominal_batch(batches: Batches, options: Options, model: Any) -> tuple[Shape, BatchForm | None]:
    """Shape and form to profile at: those of a drawn batch, on every rank rank 0's; the lengths are the option's if given."""

    def look() -> tuple[Shape, BatchForm | None]:
        drawn = batches.drawn(0, 1, options.seed)[0]
        return batches.shape_of(drawn), BatchForm.of(model, drawn, batches.encoder_decoder)

    shape, form = batches.ranks.broadcast(look)
    labelled = shape.labelled
    if options.shape is not None:
        labelled = options.shape[2] * shape.batch if len(options.shape) > 2 else labelled
        shape = Shape(shape.batch, *options.shape[:2])
    if batches.labelled_head:
        # a profile counts them by the row
        shape = shape._replace(labelled=max(round((labelled or 0) / shape.batch), 1) * shape.batch)
    return shape, form


def find_split(
    options: Options, training: Training, batches: Batches, head: LabelledHead | None
) -> PromptSplit | None:
    """Rows that may run in two parts, not attached; None: the method does not ask for it. Raises InputError if they cannot, and the method
    has no other way to train. head: as it will run at the same time."""
    traits = method_row(options.method).traits
    if not traits.splits_rows and not (traits.switches and options.cache == "off"):
        return None
    found, why = None, SplitError("it differs on another rank")
    try:
        found = _tried_split(options, training, batches, head)
    except SplitError as e:
        why = e
    if batches.ranks.any(found is None):
        if traits.switches:
            return None
        raise cannot_split(options.method, why)
    return found


def _tried_split(
    options: Options, training: Training, batches: Batches, head: LabelledHead | None
) -> PromptSplit:
    model, host = training.model, training.host
    if training.args.torch_compile or model._compiled_call_impl is not None:
        raise SplitError("torch.compile would compile anew for each length")
    if host is not None and not (host.leaves_logits_alone and host.trainer.label_smoother is None):
        raise SplitError("the Trainer's own loss, or label smoothing, reads the logits of every token")
    names, batch, coarse = _first_batch(options, training, batches)
    with nullcontext() if head is None else head.attached():
        return try_split(model, names, training.loss, batch, coarse=coarse)


def find_head(options: Options, training: Training, batches: Batches) -> LabelledHead | None:
    """The output embeddings that may run on labelled tokens alone, not attached; None: not asked for. Raises HeadError."""
    model, args, host = training.model, training.args, training.host
    if not options.labelled_head:
        return None
    if args.torch_compile or model._compiled_call_impl is not None:
        raise HeadError("torch.compile would compile anew for each number of them")
    if host is not None and not host.leaves_logits_alone:
        raise HeadError("the Trainer's own loss reads the logits of every token")
    names, batch, coarse = _first_batch(options, training, batches)
    if batches.ranks.any(unlabelled(batch)):
        raise HeadError("a first batch has no label")
    return try_head(
        model, names, training.loss, batch, coarse=coarse, watch=None if host is None else host.mind_head
    )


def _first_batch(
    options: Options, training: Training, batches: Batches
) -> tuple[dict[torch.Tensor, str], Any, bool]:
    """The input of a trial: the parameters that the optimizer holds, a labelled batch, whether rounding is coarse."""
    model, args = training.model, training.args
    held = {p for group in training.optimizer.param_groups for p in group["params"] if p.is_floating_point()}
    names = {p: n for n, p in model.named_parameters() if p in held}
    device = next(model.parameters()).device
    batch = send_to_device(batches.drawn_labelled(0, 1, options.seed)[0], device)
    # a board may multiply in TF32, and sums products of other shapes in another order
    coarse = args.bf16 or args.fp16 or device.type != "cpu" or any(p.dtype != torch.float32 for p in names)
    return names, batch, coarse

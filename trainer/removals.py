"""Says in words what waste of a stock Trainer a job leaves out, and what not and why: for `check` and `submit --explain`."""

from carbonsched.model.job import JobSpec
from carbonsched.model.profile import Removal
from trainer.device import runs_in_bf16
from trainer.profiling.flop_counter import Shape, labelled_tokens
from trainer.run import optimizer_arguments


def removals(spec: JobSpec, shape: Shape, without_head: str | None) -> tuple[Removal, ...]:
    """Those of a job as it would run on this machine.

    shape: of a mean batch; without_head: why the output embeddings run on every token, None: on labelled ones alone, or that was not asked for.
    """
    return tuple(
        Removal(what=what, on=on, text=text)
        for what, (on, text) in {
            "head": _head(spec, shape, without_head),
            "padding": _padding(spec),
            "precision": _precision(spec),
            "update": _update(spec),
        }.items()
    )


def _head(spec: JobSpec, shape: Shape, without_head: str | None) -> tuple[bool, str]:
    if not spec.train.labelled_head:
        return False, "the output embeddings run on every token: train.labelled_head = false"
    if without_head is not None:
        return False, f"the output embeddings run on every token, not on the labelled alone: {without_head}"
    ours, every = labelled_tokens(shape), labelled_tokens(shape._replace(labelled=None))
    return True, (
        f"the output embeddings run on labelled tokens alone, {ours} of {every} in a mean batch; tried on the first batch, and left "
        "off with a warning where loss or gradient would differ"
    )


def _padding(spec: JobSpec) -> tuple[bool, str]:
    if spec.data.pack:
        return True, "data.pack fills every block: nothing is padded"
    if spec.data.pad == "max_length":
        return False, 'every row is padded to data.max_length: data.pad = "max_length"'
    if not spec.train.group_by_length:
        return (
            False,
            "rows of any length share a batch, padded to the longest: train.group_by_length = false",
        )
    return True, "rows of like length share a batch, so that little is padded (train.group_by_length)"


def _precision(spec: JobSpec) -> tuple[bool, str]:
    auto, dtype = spec.train.autocast == "auto", spec.model.dtype
    if runs_in_bf16(spec.train.autocast, dtype):
        rest = ", and what stays in fp32 in TF32" if auto else ""
        return True, f"matrix products run in bf16 over {dtype} weights{rest} (train.autocast)"
    if dtype != "fp32":
        return True, f"weights and matrix products are in {dtype} (model.dtype)"
    if auto:
        return False, "matrix products run in fp32: this machine has no board with bf16 (train.autocast)"
    return False, f"matrix products run in fp32: train.autocast = {_toml(spec.train.autocast)}"


def _update(spec: JobSpec) -> tuple[bool, str]:
    if optimizer_arguments(spec.train)["optim"].endswith("_fused"):
        return True, "the optimizer updates all tensors in one fused kernel"
    return False, f"{spec.train.optimizer} has no fused update: one operation after the other"


def _toml(value: str | None) -> str:
    return '"off"' if value is None else f'"{value}"'

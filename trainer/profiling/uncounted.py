"""Names work whose FLOPs are not counted, so that no ratio is silently wrong.

A kernel that computes a whole layer hides its products from torch's counter. Recurrent layers on a GPU are refused before training, because
their share may be anything. Other such operators are reported once a counted step has met them.
"""

from typing import Any

import torch
from torch import nn

from carbonsched.errors import InputError

_OWN = frozenset(
    {
        "aten",
        "prim",
        "prims",
        "rngprims",
        "debugprims",
        "profiler",
        "c10d",
        "_c10d_functional",
        "fsdp",
        "inductor",
    }
)
"""Namespaces of torch's own operators; any other kernel is somebody's own."""
_PRODUCTS = frozenset(
    [
        "_cdist_forward",
        "_cdist_backward",
        "_euclidean_dist",
        "_cslt_sparse_mm",
        "_cudnn_attention_forward",
        "_cudnn_attention_backward",
        "_cudnn_rnn",
        "_cudnn_rnn_backward",
        "_dyn_quant_matmul_4bit",
        "_fft_c2c",
        "_fft_c2r",
        "_fft_r2c",
        "_foreach_mm",
        "_linalg_eigh",
        "_linalg_solve_ex",
        "_linalg_svd",
        "_mixed_dtypes_linear",
        "_native_multi_head_attention",
        "_scaled_dot_product_fused_attention_overrideable",
        "_scaled_dot_product_fused_attention_overrideable_backward",
        "_scaled_mm_v2",
        "_scaled_grouped_mm_v2",
        "_sparse_addmm",
        "_sparse_mm",
        "_sparse_semi_structured_addmm",
        "_sparse_semi_structured_linear",
        "_sparse_semi_structured_mm",
        "_transformer_encoder_layer_fwd",
        "_trilinear",
        "_triton_multi_head_attention",
        "_weight_int4pack_mm",
        "_weight_int4pack_mm_for_cpu",
        "_weight_int8pack_mm",
        "addr",
        "addr_",
        "dot",
        "vdot",
        "conv_tbc",
        "conv_tbc_backward",
        "linalg_cholesky_ex",
        "linalg_inv_ex",
        "linalg_lu_factor_ex",
        "linalg_qr",
        "linalg_solve_triangular",
        "miopen_rnn",
        "miopen_rnn_backward",
        "mkldnn_convolution",
        "mkldnn_linear",
        "mkldnn_linear_backward",
        "sparse_sampled_addmm",
        "triangular_solve",
    ]
)
"""Torch operators that multiply and are not in the counter's table."""
_SMALL = 1024
"""If an operator reads fewer elements than this, its work is too small to show in a ratio."""


def uncounted_name(packet: Any, args: Any) -> str | None:
    """The name of an operator without a known formula, if it multiplies, or may: any foreign kernel.

    Example:
        >>> uncounted_name(torch.ops.aten._fft_r2c, (torch.ones(64, 64), [1], 0, True))
        '_fft_r2c'
        >>> uncounted_name(torch.ops.aten.relu, (torch.ones(64, 64),)) is None
        True
    """
    full = str(getattr(packet, "_qualified_op_name", ""))
    space, _, name = full.partition("::")
    if not name or (space in _OWN and name not in _PRODUCTS):
        return None
    size = sum(x.numel() for x in args if isinstance(x, torch.Tensor))
    return None if size < _SMALL else name if space == "aten" else full


def check_recurrent(model: nn.Module) -> None:
    """Raise InputError for recurrent layers on a board: each is one kernel whose FLOPs are not counted."""
    device = next((p.device.type for p in model.parameters()), "cpu")
    if device == "cpu" or (device == "meta" and not torch.cuda.is_available()):
        return  # trainer/profiling/recurrent_flops.py
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase):
            raise InputError(
                "model",
                f"{name or 'it'} is an nn.{type(module).__name__}, on a GPU one kernel whose FLOPs are not counted: a ratio would leave it out",
                "train this model on a CPU, or without carbonsched",
            )

"""The loss by chunks is torch's own, gradients too, for less memory."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers.loss.loss_utils import ForCausalLMLoss

from trainer.profiling.chunked_loss import causal_loss


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("items", [None, 5, torch.tensor(11)])
@pytest.mark.parametrize("tokens", [1, 7, 64])
def test_it_is_the_loss_of_causal_models(dtype: torch.dtype, items: object, tokens: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    own = (4 * torch.randn(tokens, 33, generator=draw)).to(dtype).requires_grad_()
    ours = own.detach().clone().requires_grad_()
    targets = torch.randint(0, 33, (tokens,), generator=draw)
    expected = ForCausalLMLoss(own[None], None, 33, num_items_in_batch=items, shift_labels=targets[None])
    found = causal_loss(ours, targets, items, chunk_bytes=4 * 33 * 7)
    (3 * expected).backward()
    (3 * found).backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ours.grad is not None
    assert own.grad is not None
    close = 1e-6 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(ours.grad, own.grad, rtol=close, atol=1e-7 if dtype == torch.float32 else 1e-5)
    with torch.no_grad():
        assert causal_loss(ours, targets, items).item() == pytest.approx(expected.item(), rel=1e-6)


def kept(loss: Tensor, logits: Tensor) -> int:
    """Bytes that the graph of `loss` holds for its backward pass."""
    seen: dict[int, int] = {}

    def walk(node: object) -> None:
        for name in dir(node):
            if name.startswith("_saved_") and isinstance(x := getattr(node, name), Tensor):
                seen[x.data_ptr()] = x.numel() * x.element_size()
        for x in getattr(node, "saved_tensors", ()):
            seen[x.data_ptr()] = x.numel() * x.element_size()
        for above, _ in getattr(node, "next_functions", ()):
            if above is not None:
                walk(above)

    walk(loss.grad_fn)
    return sum(seen.values())


def test_half_precision_keeps_half_as_much() -> None:
    logits = torch.randn(64, 1000, dtype=torch.bfloat16, requires_grad=True)
    targets = torch.arange(64)
    own = functional.cross_entropy(logits.float(), targets)
    assert kept(causal_loss(logits, targets), logits) < 0.55 * kept(own, logits)

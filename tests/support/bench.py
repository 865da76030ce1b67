"""A championship of tiny models, and results of runs that nobody ran."""

from pathlib import Path

from support.models import tiny_llama, word_data

from trainer.bench.cell import Cell
from trainer.bench.result import Result

HEAD = """
name = "c"
[model]
name_or_path = "model"
[data]
name_or_path = "data"
[train]
batch_size = 4
lr = 1e-3
[carbon]
budget_share = 1.0
[championship]
shares = [0.5, 1.0]
tune_at = 0.5
"""
ROWS = """
[[championship.row]]
name = "stock"
method = "full"
stock = true
lr = 1e-3
[[championship.row]]
name = "full"
method = "full"
lr = 1e-3
[[championship.row]]
name = "lora"
method = "lora"
lr = 8e-3
tune = true
[[championship.row]]
name = "tensors"
method = "greentrainer"
rho = 0.6
lr = 4e-3
"""


def championship_folder(folder: Path) -> Path:
    """A model and rows, as HEAD names them."""
    tiny_llama(folder / "model")
    word_data(folder / "data")
    return folder


def write(folder: Path, text: str) -> Path:
    file = folder / "c.toml"
    file.write_text(text)
    return file


def result(cell: Cell, dev_nll: float) -> Result:
    return Result(
        variant=cell.variant.name,
        method=cell.variant.method,
        rho=cell.variant.rho,
        lr=cell.lr,
        seed=cell.seed,
        steps=10,
        rho_planned=0.5,
        rho_realised=0.5,
        flops=1.0,
        flops_full=2.0,
        seconds=1.0,
        importance_seconds=0.0,
        selection_seconds=0.0,
        joules=None,
        joules_method="none",
        peak_memory_bytes=None,
        dev_nll_before=5.0,
        dev_nll=dev_nll,
        losses=(1.0,),
        device="cpu",
        versions={},
    )

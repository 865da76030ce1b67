"""What a championship has come to: means over seeds, Holm's correction, non-inferiority, the table and the plots."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from support.bench import HEAD, ROWS, championship_folder, result, write

from trainer.bench.cell import Cell
from trainer.bench.championship import Championship, entries, plan_of, read_championship
from trainer.bench.plot import STANDINGS, draw_standings
from trainer.bench.progress import Progress
from trainer.bench.result import HeldOutResult, ResultStore
from trainer.bench.standings import standings, table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return championship_folder(tmp_path_factory.mktemp("championship"))


def held(shift: float, seed: int) -> HeldOutResult:
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 40, 100)
    nll = tokens * (rng.normal(3, 0.5, 100) + shift) + np.random.default_rng(seed).normal(0, 0.05, 100)
    return HeldOutResult(
        nll=float(nll.sum() / tokens.sum()), row_nll=tuple(nll), row_tokens=tuple(int(t) for t in tokens)
    )


def test_lines_comparisons_and_what_is_missing(folder: Path, tmp_path: Path) -> None:
    found, base = read_championship(write(folder, HEAD + 'against = ["stock"]\nmargin = 0.02' + ROWS))
    made = entries(found, base)
    plan, store = plan_of(found, base, made), ResultStore(tmp_path)
    shifts = {"stock": 0.0, "full": -0.1, "lora": 0.01}
    for entry in made:
        for seed in found.seeds if entry.row.name in shifts and entry.share == 0.5 else ():
            cell = Cell(entry.variant, entry.row.lr, seed)
            shift = shifts[entry.row.name]
            more = {"test": held(shift, seed), "flops": entry.flops, "joules": 1e3}
            store.write(cell, result(cell, 3.0 + shift + seed / 100).model_copy(update=more))
    document = standings(found, base, made, plan, store)
    lines = {line.name: line for line in document.lines}
    assert list(lines) == ["stock", "full", "lora"]
    assert lines["full"].settled
    assert not lines["lora"].settled
    assert lines["full"].seeds == (0, 1)
    assert lines["stock"].comparisons == ()
    better, level = lines["full"].comparisons[0], lines["lora"].comparisons[0]
    assert better.mean < -0.09
    assert better.p < better.p_holm < 0.05
    assert better.not_worse
    assert level.not_worse, "worse by half the margin, and surely so"
    assert level.p_holm < 0.05
    assert "tensors at 0.5" in document.missing
    assert "stock at 1" in document.missing
    text = table(document)
    assert "| 50% | full | 1.0e-03 | 2 |" in text
    assert "*≤ [" in text
    assert "(still tuned)" in text
    assert "Not run: tensors at 0.5" in text
    files = draw_standings(document, tmp_path)
    assert [f.stem for f in files] == list(STANDINGS)
    for file in files:
        names = [t.text for t in ElementTree.fromstring(file.read_text()).iter() if t.text]  # noqa: S314
        assert {"stock", "full", "lora"} <= set(names)


def test_a_row_of_one_budget_is_what_rows_of_others_are_compared_with(folder: Path, tmp_path: Path) -> None:
    """Whether half the grams end as low as all of them by the usual way."""
    whole = ROWS.replace("stock = true", "stock = true\nshares = [1.0]")
    found, base = read_championship(write(folder, HEAD + 'against = ["stock"]\nmargin = 0.02' + whole))
    made = entries(found, base)
    plan, store = plan_of(found, base, made), ResultStore(tmp_path)
    shifts = {("stock", 1.0): 0.0, ("full", 0.5): 0.005}
    for entry in made:
        shift = shifts.get((entry.row.name, entry.share))
        for seed in found.seeds if shift is not None else ():
            cell = Cell(entry.variant, entry.row.lr, seed)
            more = {"test": held(shift or 0.0, seed), "flops": entry.flops}
            store.write(cell, result(cell, 3.0).model_copy(update=more))
    lines = {line.name: line for line in standings(found, base, made, plan, store).lines}
    [gap] = lines["full"].comparisons
    assert gap.against == "stock"
    assert gap.mean == pytest.approx(0.005, abs=0.005)
    assert gap.not_worse
    assert lines["stock"].comparisons == ()


def test_nothing_has_run_yet(folder: Path, tmp_path: Path) -> None:
    found, base = read_championship(write(folder, HEAD + ROWS))
    made: Any = [e for e in entries(found, base) if e.share == 0.5]
    document = standings(found, base, made, plan_of(found, base, made), ResultStore(tmp_path))
    assert document.dev_nll_before is None
    assert len(document.missing) == 4
    assert draw_standings(document, tmp_path) == []
    assert isinstance(found, Championship)
    assert "Not run: " in table(document)


def test_time_left_is_by_the_work_that_is_left() -> None:
    progress = Progress({"a": 3.0}, clock=iter([0.0, 30.0]).__next__)
    assert progress.line(done=[], due=["a", "b"]) == "[························]   0%, 0 of 2 runs"
    progress.add("a")
    assert "75%, 1 of 2 runs, about 10s left" in progress.line(done=["a"], due=["b"])
    assert progress.line(done=["a", "b"], due=[]).endswith("100%, 2 of 2 runs")

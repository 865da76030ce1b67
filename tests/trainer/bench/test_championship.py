"""Equal grams: the steps that a budget pays for, rates taken over between budgets, and what is refused."""

from pathlib import Path

import pytest
from support.bench import HEAD, ROWS, championship_folder, result, write

from carbonsched.errors import InputError
from trainer.bench.cell import Cell
from trainer.bench.championship import entries, joules_per_flop, plan_of, read_championship
from trainer.bench.grams import constant_grid, read_grid, steps_within
from trainer.bench.result import ResultStore
from trainer.bench.runner import known_runs, next_cells


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return championship_folder(tmp_path_factory.mktemp("championship"))


def test_each_row_gets_the_steps_that_its_own_flops_pay_for(folder: Path, tmp_path: Path) -> None:
    found, base = read_championship(write(folder, HEAD + ROWS))
    made = entries(found, base)
    assert [e.share for e in made] == sorted(e.share for e in made)
    by = {(e.row.name, e.share): e for e in made}
    whole = by["stock", 1.0]
    assert dict(whole.variant.settings)["max_steps"] == 8, "an epoch, as stock goes through it"
    for entry in made:
        steps = dict(entry.variant.settings)["max_steps"]
        assert entry.flops <= entry.share * whole.flops * (1 + 1e-9)
        assert entry.flops > entry.share * whole.flops * (1 - 1.6 / steps), "one step more would not fit"
    assert by["tensors", 1.0].variant.settings[-1][1] > 8, "a step that costs less leaves grams for more"

    # rates: walked at one budget, taken over to the other, and not walked where nobody asked
    plan, store = plan_of(found, base, made), ResultStore(tmp_path)
    due = next_cells(plan, store)
    assert {c.lr for c in due if c.variant.method == "lora"} == {8e-3, 1.6e-2}
    assert not [c for c in due if c.variant == by["lora", 1.0].variant]
    for rate, nll in ((4e-3, 2.0), (8e-3, 1.0), (1.6e-2, 2.0)):
        cell = Cell(by["lora", 0.5].variant, rate, 0)
        store.write(cell, result(cell, nll))
    due = next_cells(plan, store)
    assert {c.lr for c in due if c.variant == by["lora", 1.0].variant} == {8e-3}
    assert {c.lr for c in due if c.variant.method == "full"} == {1e-3}
    done, left = known_runs(plan, store)
    assert len(done) == 3
    assert len(left) == 8 * 2 - 1

    # a method whose FLOPs take more joules gets fewer steps by the meter
    metered = found.model_copy(update={"energy": "meter"})
    assert joules_per_flop(metered, store) is None, "no run was metered"
    for name, joules in (("stock", 1.0), ("lora", 2.0)):
        cell = Cell(by[name, 0.5].variant, 5e-3, 7)
        store.write(cell, result(cell, 1.0).model_copy(update={"joules": joules}))
    weights = joules_per_flop(metered, store)
    assert weights == {"stock": 1.0, "lora": 2.0}
    fewer = {(e.row.name, e.share): e for e in entries(metered, base, weights)}
    assert fewer["lora", 1.0].flops <= 0.5 * whole.flops
    assert fewer["full", 1.0] == by["full", 1.0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEAD.partition("[championship]")[0], r"championship: is missing"),
        (HEAD, r"c\.toml: championship: row: is missing"),
        (HEAD + ROWS.replace('"tensors"', '"full"'), r"championship\.row: two are called 'full'"),
        (HEAD + ROWS.replace("rho = 0.6", ""), r"row\.tensors: greentrainer has no ratio; add rho = 0\.6"),
        (HEAD + 'against = ["nobody"]' + ROWS, r"championship\.against: there is no row 'nobody'"),
        (HEAD + ROWS.replace('"lora"\nlr', '"loar"\nlr'), r"'loar' is no"),
        (
            HEAD + ROWS + '[[championship.row]]\nname = "faster"\nmethod = "full"\nlr = 0.5\n',
            r"row\.full: is 'faster' but for its learning rate; leave one",
        ),
        (HEAD + ROWS.replace("rho = 0.6", "rho = 0.6\nsettings = {epoch = 2}"), r"unknown key"),
    ],
)
def test_what_is_no_championship_is_refused(folder: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_championship(write(folder, text))


def cost(_: int) -> float:
    return 10.0


def test_grams_follow_the_replayed_hour(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text(
        "datetime,g_per_kwh\n2026-01-01T00:00:00Z,100\n2026-01-01T01:00:00Z,300\n2026-01-01T02:00:00Z,50\n"
    )
    from datetime import UTC, datetime

    start = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)
    grid = read_grid(trace, start, seconds_per_flop=60.0)
    assert grid.grams([30.0]) == 30 * 100  # half an hour is left of the first row
    assert grid.grams([60.0, 40.0]) == 30 * 100 + 60 * 300 + 10 * 50
    assert steps_within(30 * 100 + 10 * 300, cost, grid) == 4
    assert steps_within(30 * 100 + 10 * 300, cost, grid, joules_per_flop=2.0) == 3
    assert steps_within(39.0, cost, constant_grid()) == 3
    with pytest.raises(InputError, match=r"start: lies outside t\.csv"):
        read_grid(trace, start.replace(year=2025), 60.0)
    with pytest.raises(InputError, match="pay for more than"):
        steps_within(1e9, lambda _: 1.0, constant_grid())

"""Pairs of tensors and tokens: what each costs, and which one is taken at a ρ."""

from pathlib import Path

import pytest
import torch
from support.models import tiny_llama

from trainer.methods.prepare import Prepared, prepare
from trainer.methods.tensors_and_tokens import TensorsAndTokens
from trainer.methods.tokens import Tokens
from trainer.profiling.flop_counter import Shape
from trainer.profiling.meta_model import meta_model
from trainer.profiling.row_ends import RowEnds
from trainer.profiling.shaped_costs import SharePrices

SEQ, ANSWER = 64, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama"))


def prepared(model: Path, name: str, share: float | None = None) -> tuple[Prepared, SharePrices]:
    """The method, and prices of two batches of four rows whose last tokens are the answer."""
    ids = torch.ones(4, SEQ, dtype=torch.long)
    labels = torch.where(torch.arange(SEQ) >= SEQ - ANSWER, ids, -100)
    ends = RowEnds.of({"input_ids": ids, "labels": labels})
    found = prepare(meta_model(model), name, Shape(4, SEQ), gradient_share=share)
    prices = SharePrices(found.costs, found.full, [Shape(4, SEQ, ends=ends)] * 2)
    assert isinstance(found.method, Tokens)
    found.method.prices = prices
    return found, prices


def even(found: Prepared) -> dict[str, float]:
    return {t.name: 1.0 for t in found.method.profile.tensors}


def test_each_pair_costs_what_the_coming_batches_say_and_fits(model: Path) -> None:
    found, prices = prepared(model, "greentrainer+tokens")
    curve = found.method.curve(even(found))
    worth = -1.0
    for k in range(20):
        rho = curve.floor + k * (1 - curve.floor) / 19
        chosen = curve.select(rho)
        assert chosen.gradient_share is not None
        assert chosen.rho_planned == pytest.approx(prices.ratio(chosen.selected, chosen.gradient_share))
        assert chosen.rho_planned <= rho + 1e-9
        assert chosen.importance >= worth, "more FLOPs are never worth less"
        worth = chosen.importance
    assert curve.points[0].rho == pytest.approx(curve.floor) == pytest.approx(found.method.floor)
    everything = curve.select(1.0)
    assert set(everything.selected) == {t.name for t in found.method.profile.tensors}
    assert everything.gradient_share == pytest.approx(1.0)


def test_below_what_tokens_alone_can_do_tensors_are_left_out(model: Path) -> None:
    tokens, _ = prepared(model, "tokens")
    found, _ = prepared(model, "greentrainer+tokens")
    least = tokens.method.floor
    curve = found.method.curve(even(found))
    assert curve.floor < least - 0.05
    below = curve.select(least - 0.03)
    assert 0 < len(below.selected) < len(found.method.profile.tensors)
    assert below.rho_planned < least


def test_a_fixed_share_leaves_the_tensors_to_rho(model: Path) -> None:
    found, prices = prepared(model, "greentrainer+tokens", share=0.5)
    assert isinstance(found.method, TensorsAndTokens)
    curve = found.method.curve(even(found))
    most = prices.ratio(tuple(found.method.names), 0.5)
    for rho in (curve.floor, (curve.floor + most) / 2, most, 1.0):
        chosen = curve.select(rho)
        assert chosen.gradient_share == 0.5
        assert chosen.rho_planned <= max(rho, curve.floor) + 1e-9
    assert len(curve.select(1.0).selected) == len(found.method.names)

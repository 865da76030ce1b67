"""The model card as the hub's own library reads it: grams where they are known, a reason where they are not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from support.job_history import T0, submitted, write_history

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.model.job import DataPart, JobSpec, ModelPart
from carbonsched.model.model_card import Card, Known
from carbonsched.report import Report, build, render

History = tuple[Ledger, Report]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('history') / 'ledger.db'}") as ledger:
        end = write_history(ledger, submitted(budget_g=1300))
        yield ledger, build(ledger, "scitldr-1", now=end)


def whole(report: Report) -> Report:
    """The same, had everything been known."""
    return report.model_copy(update={"totals": report.totals.model_copy(update={"unknown_s": 0.0})})


def data_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = ModelCard(text).data.to_dict()
    return found


def test_the_hub_reads_it(history: History) -> None:
    ledger, report = history
    report = whole(report)
    text = render(report, ledger, "model-card")
    data = data_of(text)
    co2 = data["co2_eq_emissions"]
    assert co2["emissions"] == report.totals.spent_g > 0
    assert co2["training_type"] == "fine-tuning"
    assert co2["geographical_location"] == "GB"
    assert "GPU-6f1c2a7e" in co2["hardware_used"]
    assert "neso" in co2["source"]
    assert data["base_model"] == "HuggingFaceTB/SmolLM2-135M"
    assert data["datasets"] == ["allenai/scitldr"]
    assert "license" not in data
    assert f"| Emissions | {report.totals.spent_g:.4g} gCO2e (estimated) |" in text
    for segment in report.segments:
        assert f"| {segment.k + 1} | {segment.steps} |" in text
        assert f"{segment.rho_realised:.3f}" in text
    assert report.savings is not None
    assert report.savings.flops.against in text
    assert report.savings.timing.against in text


def test_what_is_not_wholly_known_is_a_comment_with_the_least_it_was(history: History) -> None:
    ledger, report = history
    assert report.totals.unknown_s > 0
    text = render(report, ledger, "model-card")
    assert "emissions" not in data_of(text)["co2_eq_emissions"]
    assert f"  # emissions: at least {report.totals.spent_g:.4g}, but for " in text


def test_nothing_charged_is_not_zero(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        text = render(build(ledger, "scitldr-1", now=T0), ledger, "model-card")
    co2 = data_of(text)["co2_eq_emissions"]
    assert set(co2) == {"source", "training_type"}
    assert "# emissions: nothing was charged to the job" in text
    assert "No segment was finished." in text


def test_a_card_is_of_one_job(history: History) -> None:
    ledger, report = history
    with pytest.raises(InputError, match="a model card is of one job; give --job ID"):
        render(build(ledger, start=report.first, end=report.last, now=T0), ledger, "model-card")


def card(**fields: Any) -> Card:
    return Card(
        spec=submitted().spec,
        emissions_g=Known(None, "why\nnot"),
        location=Known(None, "x"),
        hardware=Known(None, "y"),
        source="z",
        segments=(),
        evaluations=(),
        **fields,
    )


TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), min_size=1, max_size=30
)


@given(st.floats(1e-12, 1e12), TEXT, TEXT)
def test_any_figure_and_any_name_survive(grams: float, source: str, board: str) -> None:
    made = replace(card(), emissions_g=Known(grams), hardware=Known(board), source=source)
    co2 = yaml.safe_load(made.text().split("---\n")[1])["co2_eq_emissions"]
    assert co2["emissions"] == grams
    assert isinstance(co2["emissions"], float)
    assert (co2["hardware_used"], co2["source"]) == (board, source)


@pytest.mark.parametrize("name", ["/srv/models/x", "./x", "a/b/c", "two words"])
def test_folders_are_no_hub_ids(name: str) -> None:
    spec: JobSpec = submitted().spec.model_copy(
        update={"model": ModelPart(name_or_path=name), "data": DataPart(name_or_path=name)}
    )
    text = replace(card(), spec=spec).text()
    data = data_of(text)
    assert "base_model" not in data
    assert "datasets" not in data
    assert "# base_model: not the id of something on the hub" in text

"""Every format says how energy and intensities came to be known, and calls nothing metered that is modelled."""

from datetime import timedelta
from pathlib import Path

import pytest
from support.job_history import T0, submitted, write_history

from carbonsched.ledger import Ledger
from carbonsched.model.energy import EnergyMethod
from carbonsched.model.grid import HELD, Basis, Kind
from carbonsched.report import build, render
from carbonsched.report.parts import FeedUse, NamedSums
from carbonsched.report.provenance import energy_words, intensity_estimated, intensity_words, kind_sums


def feed(kind: Kind, spent_g: float, note: str = "") -> FeedUse:
    return FeedUse(
        provider="p",
        zone="GB",
        basis=Basis.AVERAGE_DIRECT,
        kind=kind,
        rows=1,
        energy_j=3.6e6,
        g_per_kwh=200.0,
        spent_g=spent_g,
        settled_g=spent_g,
        first=T0,
        last=T0 + timedelta(hours=1),
        time_compression=1.0,
        note=note,
    )


def test_grams_are_told_by_kind_and_held_ones_are_a_kind_of_their_own() -> None:
    feeds = [
        *(feed(kind, 10.0) for kind in Kind),
        feed(Kind.ACTUAL, 20.0),
        feed(Kind.ESTIMATED, 30.0, f"synthetic; {HELD}"),
    ]
    found = {one.kind: one for one in kind_sums(feeds)}
    assert list(found) == ["actual", "estimated", "forecast", "held", "fallback", "static"]
    assert {name: one.spent_g for name, one in found.items()} == {
        name: {"actual": 30.0, "held": 30.0}.get(name, 10.0) for name in found
    }
    assert sum(one.share or 0 for one in found.values()) == pytest.approx(1)
    assert [name for name, one in found.items() if not one.estimated] == ["actual"]
    assert "30.0% held" in intensity_words(kind_sums(feeds))
    assert intensity_estimated(kind_sums(feeds))
    assert not intensity_estimated(kind_sums([feed(Kind.ACTUAL, 1.0)]))
    assert kind_sums([feed(Kind.ACTUAL, 0.0)])[0].share is None
    assert intensity_words(()) == "no grams are known"


def test_every_format_says_so(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        report = build(ledger, "scitldr-1", now=write_history(ledger, submitted(budget_g=1300)))
        assert sum(k.spent_g for k in report.kinds) == pytest.approx(sum(f.spent_g for f in report.feeds))
        card, page = (render(report, ledger, name) for name in ("model-card", "html"))
        for words in (intensity_words(report.kinds), energy_words(report.methods)):
            assert words in card
        assert energy_words(report.methods) in page
        assert "share of the grams" in page
        modelled = report.model_copy(
            update={
                "methods": tuple(
                    NamedSums(name=EnergyMethod.ESTIMATED, sums=part.sums) for part in report.methods[:1]
                )
            }
        )
        for name in ("model-card", "html"):
            text = render(modelled, ledger, name)
            assert "energy 100.0% modelled, or split by time (estimated)" in text
            assert "metered" not in text.replace("fitted from this job's own metered segments", "").replace(
                "c0 from the metered segments", ""
            )
    assert energy_words(()) == "energy not known"

"""What evaluation will take, foreseen: it is in the grams of an explanation, and what it rests on is said."""

from pathlib import Path

import pytest
from support.rig import ME, Rig, checked, spec

from carbonsched.model.job import JobSpec
from carbonsched.model.views import Explained

G = 75 / 3.6e6 * 400
"""Of a second by the priors: 75 W at 400 g/kWh. A step takes 2 s, 4 rows of it, so a row's loss 1/6 s."""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def job(**parts: dict[str, object]) -> JobSpec:
    raw = spec().dump()
    for part, fields in parts.items():
        raw[part] |= fields
    return JobSpec.parse(raw)


def explain(rig: Rig, asked: JobSpec, **found: object) -> Explained:
    return rig.service.explain(asked, ME, checked(**found))


def said(told: Explained) -> str:
    return next(text for text in told.assumptions if text.startswith("evaluation: "))


def test_validation_and_test_rows_are_in_the_grams_and_the_energy(rig: Rig) -> None:
    bare = explain(rig, job(), test_rows=0)
    assert bare.evaluation_g == 0.0
    assert said(bare) == "evaluation: no held-out rows"
    told = explain(rig, job(evaluate={"test": "test"}), validation_rows=60, test_rows=600)
    # 60 rows before and after, 600 after: 720 rows of 1/6 s
    assert told.evaluation_g == pytest.approx(120 * G, rel=0.01)
    assert told.g - bare.g == pytest.approx(120 * G, rel=0.01)
    assert told.floor_g - bare.floor_g == pytest.approx(120 * G, rel=0.01)
    assert told.energy_j - bare.energy_j == pytest.approx(120 * 75, rel=0.01)
    assert said(told) == (
        "evaluation: 60 validation rows before and after training and 600 test rows after, 120 s in all"
    )
    assert told.low_g < told.g < told.high_g
    assert told.end is not None
    assert bare.end is not None
    assert (told.end - bare.end).total_seconds() == pytest.approx(120, abs=1)


def test_energy_and_grams_are_of_the_same_whole(rig: Rig) -> None:
    told = explain(rig, job(), validation_rows=60)
    assert told.g == pytest.approx(told.energy_j / 3.6e6 * 400, rel=1e-6)


def test_a_look_at_the_end_of_each_segment_is_counted(rig: Rig) -> None:
    plain = explain(rig, job(), validation_rows=60)
    each = explain(rig, job(train={"evaluate_each_segment": True}), validation_rows=60)
    assert each.g - plain.g == pytest.approx(4 * 10 * G, rel=0.01)
    assert each.evaluation_g == pytest.approx(60 * G, rel=0.01)
    assert "before, in and after training" in said(each)


def test_text_is_reckoned_at_its_full_length_and_said_so(rig: Rig) -> None:
    asked = job(evaluate={"metrics": ["rouge"], "test": "test", "limit": 40, "max_new_tokens": 100})
    told = explain(rig, asked, validation_rows=60, test_rows=40)
    # twice 40 validation rows and 40 test rows in batches of 4, at 0.03 s a token, on top of the losses and the prompts
    tokens_s = 30 * 100 * 0.03
    assert told.evaluation_g == pytest.approx((tokens_s + (120 + 40 + 120) / 6) * G, rel=0.01)
    assert "every text runs to its 100 tokens at 0.03 s a token and batch, assumed" in said(told)


def test_text_is_reckoned_at_what_this_box_was_measured_at(rig: Rig) -> None:
    asked = job(evaluate={"metrics": ["rouge"], "max_new_tokens": 50})
    first = rig.service.submit(asked, ME, checked(validation_rows=8))
    rig.run(1)
    path = rig.supervisor.job_dir(first.id) / "events.jsonl"
    at = rig.clock.now().isoformat()
    # two batches of 50 tokens in 20 s
    path.write_text(
        f'{{"at": "{at}", "event": "evaluated", "when": "before", "step": 0, "loss": 2.0, "samples": 8, "tokens": 80, '
        '"seconds": 20.0, "metrics": {"generated_rows": 8}}\n'
    )
    rig.run(1)
    told = explain(rig, asked, validation_rows=8)
    assert "at 0.2 s a token and batch, measured on this box with this model" in said(told)


def test_a_trainer_that_does_not_tell_of_test_rows_has_that_said(rig: Rig) -> None:
    told = explain(rig, job(evaluate={"test": "test"}))
    assert "the test rows are not counted" in said(told)


def test_a_budget_keeps_the_evaluation_after_training_back(rig: Rig) -> None:
    """Also where no first look tells of it, since there are no validation rows."""
    asked = job(evaluate={"test": "test"}, carbon={"budget_g": 1.6})
    rhos = []
    for rows in (0, 600):
        played = rig.submit(asked, checked(test_rows=rows))
        rig.run(1)
        played.started()
        played.ready(0)
        rig.run(1)
        rhos.append(played.control()["rho"])
        played.finish()
    # 80 s of steps at 100 W and ρ = 1 are 0.89 g, 100 s of evaluation 1.1 g
    assert rhos[0] == pytest.approx(1.0)
    assert rhos[1] < 0.8

"""The card beside a model that a real run made."""

import json
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from support.models import job_folder, tiny_llama, tiny_spec, word_data
from support.steer import FakeDaemon, always, of

from trainer.job.job_dir import JobDir
from trainer.run import run_job

torch.set_num_threads(1)


def test_a_run_leaves_a_card_without_grams(tmp_path: Path) -> None:
    spec = tiny_spec(
        tiny_llama(tmp_path / "model"),
        word_data(tmp_path / "data"),
        train={"max_steps": 4, "segment": 2},
        model={"dtype": "bf16"},
    ) | {"evaluate": {"metrics": ["f1"], "max_new_tokens": 4}}
    job = job_folder(tmp_path / "job", spec)
    with FakeDaemon(job, always(0.9)):
        assert run_job(JobDir(job), lambda: False) == "done"
    before, after = of(job, "evaluated")
    assert after["loss"] < before["loss"], "bf16 trains"

    text = (job / "output" / "README.md").read_text()
    data = ModelCard(text).data.to_dict()
    assert data["co2_eq_emissions"]["hardware_used"] == "cpu"
    assert "emissions" not in data["co2_eq_emissions"]
    assert "# emissions: the trainer meters nothing; carbonsched report --job 1 --format model-card" in text
    for done in of(job, "segment_done"):
        row = f"| {done['k'] + 1} | 2 | 0.900 | {done['rho_planned']:.3f} | {done['rho_realised']:.3f} |"
        assert row in text
    metrics = json.loads((job / "output" / "metrics.json").read_text())
    assert f"| Training FLOPs | {metrics['flops']:.4g}" in text
    assert f"| after | 4 | 8 | {after['loss']:.4f} |" in text
    assert "max_new_tokens 4" in text
    assert f"| torch | {torch.__version__} |" in text
    assert "| weights | bf16 |" in text

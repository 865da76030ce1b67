"""The benchmark of a board on tiny shapes: every setting runs, ρ is counted, and what cannot be is left out by name."""

import json

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import Report, main, run

torch.set_num_threads(1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure this machine's board for minutes")
def test_every_setting_is_measured_on_a_tiny_shape(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["left_out"] == []
    rows = {row["kind"]: row for row in document["rows"]}
    assert list(rows) == ["full", "stock", "tensors", "tokens", "both"]
    assert rows["full"]["rho"] == rows["full"]["passes_ratio"] == 1.0
    assert rows["stock"]["rho"] > 1.2
    assert rows["tensors"]["rho"] <= 0.7
    assert rows["tensors"]["trained_share"] < 1
    assert rows["both"]["rho"] < rows["tokens"]["rho"] < 1, "fewer tensors over the same tokens"
    assert rows["tokens"]["forward_no_grad_s"] > 0
    assert rows["tokens"]["trained_share"] == 1.0
    for row in rows.values():
        assert row["backward_s"] > 0
        assert row["update_s"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="would measure this machine's board for minutes")
def test_what_there_is_no_time_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    document = run([], Report(limit_s=0.0))
    assert document["rows"] == []
    assert document["left_out"] == ["tiny full: no time left of 0 s"]

    def fail(*given: object, **named: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu.Bench, "measure", fail)
    assert run([], Report())["left_out"] == ["tiny full: RuntimeError: out of memory"]

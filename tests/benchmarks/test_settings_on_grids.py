"""What `auto` plans on a grid is worth no less than what any of its settings would by itself."""

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks import settings_on_grids


@pytest.mark.slow
def test_auto_is_level_with_the_best_of_its_settings_and_pauses_pay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = datetime(2022, 1, 1, tzinfo=UTC)
    hours = [(first + timedelta(hours=h), 300 + 200 * math.sin(2 * math.pi * h / 24)) for h in range(24 * 60)]
    lines = ["datetime,g_per_kwh", *(f"{at:%Y-%m-%dT%H:%M:%SZ},{g:.1f}" for at, g in hours)]
    (tmp_path / "wave.csv").write_text("\n".join(lines) + "\n")
    asked = ["--traces", str(tmp_path), "--trace", "wave.csv", "--jobs", "1"]
    assert settings_on_grids.main(asked) == 0
    short, long = json.loads(capsys.readouterr().out)["grids"]
    for grid in (short, long):
        policies = {line["policy"]: line for line in grid["policies"]}
        assert len(policies) == len(settings_on_grids.POLICIES)
        assert all(line["passed"] == 0 for line in policies.values())
        assert all(line["against_auto"] < 1.02 for line in policies.values())
    by_name = {line["policy"]: line["full_steps_worth"] for line in long["policies"]}
    assert by_name["full with fewer steps and pauses"] > 1.2 * by_name["full with fewer steps"]

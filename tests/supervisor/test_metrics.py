"""/metrics: true figures, every metric documented, rules that promtool accepts and that name metrics that are."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.rig import ME, Rig

from carbonsched.model.job import Owner
from carbonsched.supervisor.access import ANONYMOUS
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.metrics import render

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "prometheus"
DOCUMENTED = dict(
    re.findall(
        r"^\| `(carbonsched_\w+)` \| (\w+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE
    )
)
BOB = Owner(uid=12346, gid=12346, user="bob")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, extra={"pools": [{"name": "lab", "budget_g": 50.0}]})


def samples(text: str) -> dict[str, float]:
    """`name{label="value"}` → value."""
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {key: float(value) for key, _, value in lines}


def test_figures_are_the_accounts(rig: Rig) -> None:
    job = rig.running()
    for _ in job.play(0):
        pass
    found, shown = samples(rig.service.metrics(ME)), job.show()
    labels = f'{{job_id="{job.id}",owner="root"}}'
    assert found[f"carbonsched_job_energy_joules_total{labels}"] == pytest.approx(shown.energy_j)
    assert found[f"carbonsched_job_emissions_grams_total{labels}"] == pytest.approx(shown.spent_g)
    assert found[f"carbonsched_job_budget_remaining_grams{labels}"] == pytest.approx(100 - shown.spent_g)
    assert found[f"carbonsched_job_power_watts{labels}"] == 100.0
    assert found[f"carbonsched_job_rho_ratio{labels}"] == rig.supervisor.runs[job.id].directive.rho  # type: ignore[union-attr]
    metered = {k: v for k, v in found.items() if k.startswith("carbonsched_energy_joules_total")}
    rig.supervisor.flush()
    assert sum(metered.values()) == pytest.approx(rig.metered_mj() / 1000)
    assert found['carbonsched_jobs{state="running"}'] == 1.0
    assert found['carbonsched_pool_remaining_grams{pool="lab"}'] == 50.0
    [(_, intensity)] = [(k, v) for k, v in found.items() if k.startswith("carbonsched_grid_intensity")]
    assert intensity == 400.0
    assert found["carbonsched_tick_duration_seconds_count"] == rig.supervisor.ticks
    assert found["carbonsched_ledger_write_duration_seconds_count"] > 0


def test_late_ticks_are_counted(rig: Rig) -> None:
    rig.run(3)
    assert "carbonsched_late_ticks_total 0.0" in rig.service.metrics(ME)
    rig.clock.advance(9)
    rig.supervisor.tick()
    assert "carbonsched_late_ticks_total 1.0" in rig.service.metrics(ME)


def test_rho_is_for_who_may_read_the_job(rig: Rig) -> None:
    job = rig.running()
    next(job.play(0))
    for who in (BOB, ANONYMOUS):
        text = rig.service.metrics(who)
        assert job.id in text
        assert "job_rho_ratio{" not in text
    assert "job_rho_ratio{" in rig.service.metrics(ME)


def test_every_metric_is_documented_and_no_other(rig: Rig) -> None:
    rig.running()

    def readable(_: JobRun) -> bool:
        return True

    families = {f.name: f.type for f in text_string_to_metric_families(render(rig.supervisor, readable))}
    names = {
        name + {"counter": "_total"}.get(kind, ""): ("info" if name == "carbonsched_build_info" else kind)
        for name, kind in families.items()
    }
    assert names == DOCUMENTED


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*.yml")), ids=lambda file: file.name)
def test_rules_name_metrics_that_are(file: Path) -> None:
    text = re.sub(r"\w+:carbonsched_\w+(:\w+)?", "", file.read_text())
    said = {re.sub(r"_(bucket|count|sum)$", "", n) for n in re.findall(r"\bcarbonsched_\w+", text)}
    assert said <= set(DOCUMENTED)


@pytest.fixture
def promtool() -> str:
    found = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if found is None:
        pytest.skip(
            "promtool is not installed (Debian: apt-get install prometheus; or name one in $PROMTOOL)"
        )
    return found


def test_promtool_accepts_rules_and_metrics(rig: Rig, promtool: str) -> None:
    rig.running()
    for command, stdin in (
        (["check", "rules", str(DEPLOY / "carbonsched.rules.yml")], ""),
        (["check", "config", str(DEPLOY / "prometheus.yml")], ""),
        (["check", "metrics"], rig.service.metrics(ME)),
    ):
        done = subprocess.run([promtool, *command], input=stdin, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout


RULES_TEST = Path(__file__).parents[1] / "fixtures" / "carbonsched.rules.test.yml"


def test_each_alert_fires_on_a_sick_box_and_on_no_other(promtool: str, tmp_path: Path) -> None:
    rules = DEPLOY / "carbonsched.rules.yml"
    (tmp_path / "test.yml").write_text(RULES_TEST.read_text().replace("RULES", str(rules)))
    argv = [promtool, "test", "rules", str(tmp_path / "test.yml")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_alert_is_without_such_a_test_and_a_row_of_what_to_do() -> None:
    alerts = re.findall(r"- alert: (\w+)", (DEPLOY / "carbonsched.rules.yml").read_text())
    text, page = RULES_TEST.read_text(), (DEPLOY.parents[1] / "docs/troubleshooting.md").read_text()
    assert all(text.count(f"alertname: {alert}") == 2 and f"| `{alert}` |" in page for alert in alerts)

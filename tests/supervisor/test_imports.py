"""What other tools measured, as their own writers write it: booked once, apart, whole or not at all."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from codecarbon.output_methods.emissions_data import EmissionsData
from codecarbon.output_methods.file import FileOutput
from support.rig import ME, Rig

from carbonsched.errors import DeniedError, InputError, LedgerError
from carbonsched.imports import codecarbon, zeus
from carbonsched.ledger.ledger import Ledger
from carbonsched.model.imported import ImportBody, Imported
from carbonsched.model.job import Owner
from carbonsched.report.document import build
from carbonsched.report.html import page
from carbonsched.supervisor.imports import book

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def line(run_id: str = "r1", timestamp: str = "2026-11-01T12:30:00", **fields: Any) -> EmissionsData:
    """A run of an hour: 0.3 kWh with PUE 1.5 in it, 120 g."""
    told: dict[str, Any] = {
        "timestamp": timestamp,
        "project_name": "thesis",
        "run_id": run_id,
        "experiment_id": "e",
        "duration": 1800.0,
        "emissions": 0.12,
        "emissions_rate": 0.0,
        "cpu_power": 1.0,
        "gpu_power": 1.0,
        "ram_power": 1.0,
        "cpu_energy": 0.09,
        "gpu_energy": 0.18,
        "ram_energy": 0.03,
        "energy_consumed": 0.3,
        "water_consumed": 0.0,
        "country_name": "Germany",
        "country_iso_code": "DEU",
        "region": "berlin",
        "cloud_provider": "",
        "cloud_region": "",
        "os": "x",
        "python_version": "3.11",
        "codecarbon_version": "3.3.2",
        "cpu_count": 2,
        "cpu_model": "x",
        "gpu_count": 1,
        "gpu_model": "y",
        "longitude": 13.0,
        "latitude": 52.0,
        "ram_total_size": 8.0,
        "tracking_mode": "machine",
        "pue": 1.5,
    }
    return EmissionsData(**told | fields)


def emissions(tmp_path: Path, *lines: EmissionsData) -> Path:
    out = FileOutput("emissions.csv", str(tmp_path))
    for each in lines:
        out.out(each, each)
    return tmp_path / "emissions.csv"


def taken(ledger: Ledger, body: ImportBody) -> Imported:
    return book(ledger, body, "ada", 1000, NOW)


def test_codecarbons_own_file_is_booked_once_by_its_own_figures(tmp_path: Path) -> None:
    first = line(timestamp="2026-11-01T12:10:00", duration=600.0, energy_consumed=0.1, emissions=0.04,
                 cpu_energy=0.03, gpu_energy=0.06, ram_energy=0.01)  # fmt: skip
    path = emissions(
        tmp_path, first, line(), line("r2", "2026-11-02T12:00:00", gpu_energy=0.0, energy_consumed=0.12)
    )
    with Ledger.open("sqlite://") as ledger:
        booked = taken(ledger, codecarbon.read(path, UTC))
        assert (booked.runs, booked.rows, booked.known, booked.left_out) == (2, 6, 0, 1)
        assert booked.energy_j == pytest.approx(0.42 * 3.6e6 / 1.5)
        assert booked.grams == pytest.approx(240)
        again = taken(ledger, codecarbon.read(path, UTC))
        assert (again.runs, again.rows, again.known, again.changed) == (0, 0, 2, ())
        path = emissions(tmp_path, line("r2", "2026-11-02T13:00:00"), line("r3"))
        grown = taken(ledger, codecarbon.read(path, UTC))
        assert (grown.runs, grown.known) == (1, 2)
        assert grown.changed == ("emissions.csv line 5",), "it is said, and not booked a second time"
        assert ledger.verify().ok
        rows = list(ledger.rows())
        assert {row["account"] for row in rows} == {row["method"] for row in rows} == {"imported"}
        assert rows[0]["start_us"] == datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp() * 1e6
        [entry, _] = ledger.history(None, kinds=("imported",))
        assert set(entry["runs"]) == {"codecarbon:r1", "codecarbon:r2"}


def test_a_time_without_a_zone_is_of_the_zone_that_was_named(tmp_path: Path) -> None:
    from zoneinfo import ZoneInfo

    path = emissions(tmp_path, line(timestamp="2026-07-01T12:30:00"), line("r2", "2026-12-01T12:30:00"))
    runs = codecarbon.read(path, ZoneInfo("Europe/Berlin")).runs
    assert [run.end.hour for run in runs] == [10, 11]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"energy_consumed": "1_0"}, "emissions.csv line 3, energy_consumed: '1_0' is no number"),
        ({"energy_consumed": "much"}, "emissions.csv line 3, energy_consumed: 'much' is no number"),
        ({"emissions": -1.0}, "line 3, emissions: -1.0 is not possible"),
        ({"duration": float("inf")}, "line 3, duration: inf is not possible"),
        ({"emissions": 120.0}, "line 3, emissions: gives 4e\\+05 g/kWh, which no grid has; its unit is kg"),
        ({"gpu_energy": 5.0}, "line 3, energy_consumed: 0.3 kWh is not the sum of its parts"),
        ({"timestamp": "yesterday"}, "line 3, timestamp: 'yesterday' is no time"),
        ({"run_id": ""}, "line 3, run_id: is empty"),
        ({"pue": 0.5}, "line 3, pue: 0.5 is below 1"),
        ({"energy_consumed": 0, "cpu_energy": 0, "gpu_energy": 0, "ram_energy": 0}, "line 3, emissions: 0.12 kg came of no"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    path = emissions(tmp_path, line(), line(**{"run_id": "r2"} | fields))
    with pytest.raises(InputError, match=words):
        codecarbon.read(path, UTC)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "log.csv: is empty"),
        ("a,b\n1,2\n", "log.csv line 1: has no column"),
        ("start_time,window_name,elapsed_time\n1,2,3\n", "line 1: names no gpu<N>_energy"),
        ("start_time,window_name,elapsed_time,gpu0_energy\n1,a,1\n", "line 2: has 3 fields, the header 4"),
        ("start_time,window_name,elapsed_time,gpu0_energy\n1,a,1,\n", "line 2, gpu0_energy: is empty"),
        (
            "start_time,window_name,elapsed_time,gpu0_energy\nx,a,1,5\n",
            "line 2, start_time: 'x' is no number",
        ),
        ('start_time,window_name,elapsed_time,gpu0_energy\n1,"a,1,5\n', "line 2: opens a quote"),
        (
            "start_time,window_name,elapsed_time,gpu0_energy\n100,a,10,5\n105,b,10,5\n",
            "line 3, start_time: its window overlaps that of log.csv line 2 in part",
        ),
    ],
)
def test_a_log_that_is_none_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        zeus.read(path, 300.0)


def zeus_log(tmp_path: Path) -> Path:
    """As ZeusMonitor writes windows, an inner one before the one around it."""
    path = tmp_path / "zeus.csv"
    path.write_text(
        "start_time,window_name,elapsed_time,gpu0_energy,gpu1_energy\n"
        "1790000001.5,step,2.0,300.0,310.0\n"
        "1790000000.25,epoch 0,10.5,3000.5,3100.25\n"
        "1790000010.75,epoch 1,10.0,2900.0,3000.0\n"
    )
    return path


def test_windows_inside_another_are_not_counted_twice(tmp_path: Path) -> None:
    with Ledger.open("sqlite://") as ledger:
        booked = taken(ledger, zeus.read(zeus_log(tmp_path), 360.0))
        assert (booked.runs, booked.rows, booked.left_out) == (2, 4, 1)
        assert booked.energy_j == pytest.approx(12_000.75)
        assert booked.grams == pytest.approx(12_000.75 / 3.6e6 * 360)
        assert taken(ledger, zeus.read(zeus_log(tmp_path), 360.0)).runs == 0
        assert ledger.verify().ok


def test_grams_of_no_known_intensity_are_unknown_and_not_0(tmp_path: Path) -> None:
    with Ledger.open("sqlite://") as ledger:
        assert taken(ledger, zeus.read(zeus_log(tmp_path), None)).grams is None
        assert {row["grams"] for row in ledger.rows()} == {None}


def test_nothing_is_booked_where_a_part_of_it_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise LedgerError("disk full")

    with Ledger.open("sqlite://") as ledger:
        with monkeypatch.context() as patch:
            patch.setattr(ledger, "note", refuse)
            with pytest.raises(LedgerError):
                taken(ledger, zeus.read(zeus_log(tmp_path), None))
        assert ledger.totals().rows == 0


def test_a_report_tells_them_apart_from_what_was_metered_and_the_overlap_is_said(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.run(30)
    at = rig.clock.now() - timedelta(seconds=5)
    path = emissions(tmp_path, line(timestamp=at.strftime("%Y-%m-%dT%H:%M:%S"), duration=20.0))
    booked = rig.service.import_log(codecarbon.read(path, UTC), ME)
    assert 0 < booked.metered_beside_j <= 3000
    marks = rig.ledger.marks()
    assert set(marks) == {"replay-0"}, "no meter goes on from them"
    assert {s.charged.provider for s in rig.ledger.stretches(at - timedelta(hours=1), at)} == {"static"}
    rig.run(1)
    report = build(rig.ledger, start=at - timedelta(hours=2), now=rig.clock.now())
    names = {part.name: part.sums.energy_j for part in report.accounts}
    assert names["imported"] == pytest.approx(720_000)
    assert names["idle"] <= 3100
    [note] = [note for note in report.notes if note.startswith("Imported, not metered here")]
    assert "720000 J and 120 g" in note
    assert "imported" in page(report, rig.ledger)
    assert [board for board in report.boundary.inside if "codecarbon" in board] == []
    stranger = Owner(uid=4711, gid=4711, user="eve", pid=1)
    with pytest.raises(DeniedError, match="only an admin"):
        rig.service.import_log(codecarbon.read(path, UTC), stranger)

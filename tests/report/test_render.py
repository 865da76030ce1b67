"""The formats as a reader, a browser, a spreadsheet and codecarbon's tools find them."""

import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from codecarbon.output_methods.emissions_data import EmissionsData
from support.job_history import GPU, T0, interval, submitted, write_history
from support.plugins import install

from carbonsched.errors import InputError
from carbonsched.ledger import Ledger
from carbonsched.model.job import JobSpec
from carbonsched.report import Report, build, find, names, pieces, render

History = tuple[Ledger, Report]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('history') / 'ledger.db'}") as ledger:
        end = write_history(ledger, submitted(budget_g=1300))
        yield ledger, build(ledger, "scitldr-1", now=end)


class Tags(HTMLParser):
    """Checks that tags nest, and gathers what a page would load."""

    void = frozenset({"meta", "br", "link", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.void:
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<rect/>` and its kind open nothing."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_json_is_the_document(history: History) -> None:
    ledger, report = history
    data = json.loads(render(report, ledger, "json"))
    assert data["schema_version"] == "1"
    assert data["totals"]["spent_g"] == report.totals.spent_g
    assert data["segments"][0]["start"].endswith("Z")


def test_csv_holds_every_row_and_its_hash(history: History) -> None:
    ledger, report = history
    rows = list(csv.DictReader(io.StringIO(render(report, ledger, "csv"))))
    assert len(rows) == ledger.totals("scitldr-1").rows
    assert sum(float(row["grams"] or 0) for row in rows) == pytest.approx(report.totals.spent_g)
    assert {row["job_id"] for row in rows} == {"scitldr-1"}
    unknown = [row for row in rows if not row["g_per_kwh"]]
    assert len(unknown) == 8, "unknown is empty"
    assert all(row["grams"] == "" for row in unknown)
    first = next(iter(ledger.rows("scitldr-1")))
    assert (rows[0]["hash"], rows[0]["start"]) == (first["hash"], "2026-11-20T16:00:00.000000Z")


def test_csv_of_a_long_ledger_comes_in_pieces(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.append([interval(T0 + timedelta(seconds=n), 1, n) for n in range(2300)])
        report = build(ledger, now=T0 + timedelta(days=1), start=T0, end=T0 + timedelta(days=1))
        parts = list(pieces(report, ledger, "csv"))
        assert [part.count("\n") for part in parts] == [1001, 1000, 300]
        assert "".join(parts) == render(report, ledger, "csv")
        nothing = build(ledger, now=T0, start=T0 - timedelta(days=1), end=T0)
        assert render(nothing, ledger, "csv").count("\n") == 1, "the head alone"


def test_a_period_with_every_row_verifies_from_its_csv_alone(history: History) -> None:
    ledger, report = history
    whole = build(ledger, now=report.created_at)
    before = "0" * 64
    for row in csv.DictReader(io.StringIO(render(whole, ledger, "csv"))):
        assert row["prev_hash"] == before
        before = row["hash"]
        assert re.fullmatch("[0-9a-f]{64}", before)
    last = list(ledger.rows())[-1]
    assert before == last["hash"]


def test_codecarbon_has_its_columns_and_kilograms_with_pue(history: History) -> None:
    ledger, report = history
    (row,) = csv.DictReader(io.StringIO(render(report, ledger, "codecarbon")))
    assert list(row) == [field.name for field in fields(EmissionsData)]
    assert float(row["emissions"]) == pytest.approx(report.totals.spent_g / 1000)
    assert float(row["energy_consumed"]) == pytest.approx(report.facility_kwh)
    parts = ("cpu_energy", "gpu_energy", "ram_energy")
    assert sum(float(row[part] or 0) for part in parts) == pytest.approx(report.facility_kwh)
    assert (row["country_name"], row["country_iso_code"], row["region"]) == ("United Kingdom", "GBR", "GB")
    assert row["codecarbon_version"] == version("codecarbon")
    assert float(row["emissions_rate"]) * float(row["duration"]) == pytest.approx(float(row["emissions"]))
    assert (row["run_id"], row["project_name"], row["pue"]) == ("scitldr-1", "scitldr-smollm2", "1.2")
    assert row["water_consumed"] == "", "unknown is not 0"


def test_html_stands_alone(history: History) -> None:
    ledger, report = history
    page = render(report, ledger, "html")
    tags = read(page)
    assert tags.links == []
    assert "<script" not in page
    outside = page.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|@import|url\(", outside)
    for words in (
        "Saved by fewer FLOPs",
        "Saved by timing",
        "Bridged, unknown and missing stretches",
        "Completeness",
        "Sign-off",
        "Lost work",
    ):
        assert words in tags.text
    for note in report.notes:
        assert note in tags.text


def test_html_tells_rho_of_the_users_own_run_where_it_is_known(history: History) -> None:
    ledger, report = history
    assert "of own run" not in read(render(report, ledger, "html")).text
    first, *others = report.segments
    own = report.model_copy(update={"segments": (first.model_copy(update={"rho_own": 0.8731}), *others)})
    page = read(render(own, ledger, "html")).text
    assert "of own run" in page
    assert "0.873" in page


def test_every_chart_is_well_formed_and_described(history: History) -> None:
    ledger, report = history
    page = render(report, ledger, "html")
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.S)
    assert len(charts) == 5
    ids: list[str] = []
    for chart in charts:
        tree = ET.fromstring(chart)  # noqa: S314  our own page
        title, description = (
            tree.find(f"{{http://www.w3.org/2000/svg}}{name}") for name in ("title", "desc")
        )
        assert title is not None
        assert description is not None
        assert title.text
        assert description.text
        ids += [node.attrib["id"] for node in (title, description)]
        assert tree.attrib["aria-labelledby"].split() == ids[-2:]
        assert "nan" not in chart
    assert len(set(ids)) == 10


@pytest.mark.parametrize(("kwh", "unit"), [(10, "g"), (1_000, "kg"), (10_000, "kg"), (10_000_000, "t")])
def test_no_figure_beside_a_chart_is_too_long_for_its_room(kwh: int, unit: str) -> None:
    """A year's emissions were cut to ",000,000"."""
    with Ledger.open("sqlite://") as ledger:
        ledger.append([interval(T0, 365 * 86_400, kwh * 3_600_000_000)])
        report = build(ledger, now=T0 + timedelta(days=366))
        page = render(report, ledger, "html")
    assert f"emitted so far, {unit}CO₂e" in page
    chart = re.findall(r"<svg.*?</svg>", page, flags=re.S)[0]
    beside = re.findall(r'text-anchor="end">([^<]*)</text>', chart)
    assert beside
    assert all(len(figure) <= len("100,000") for figure in beside), beside


HOSTILE = "<script>alert(1)</script>"


def test_a_hostile_name_stays_text(tmp_path: Path) -> None:
    job = submitted()
    spec = JobSpec.model_construct(**(dict(job.spec) | {"name": HOSTILE}))
    job = job.model_copy(update={"spec": spec})
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        ledger.append(
            [
                interval(
                    T0, 10, 9000, job_id="scitldr-1", board=HOSTILE, note=HOSTILE, compression=2, bridged=True
                )
            ]
        )
        report = build(ledger, "scitldr-1", now=T0)
        assert report.job is not None
        named = report.model_copy(
            update={"job": report.job.model_copy(update={"name": HOSTILE, "reason": HOSTILE})}
        )
        page = render(named, ledger, "html")
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 5
    assert HOSTILE in read(page).text


def test_unknown_is_said_and_never_zero(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        ledger.add_job(submitted())
        ledger.append([interval(T0, 10, None, job_id="scitldr-1", g_per_kwh=None)])
        report = build(ledger, "scitldr-1", now=T0)
        text = read(render(report, ledger, "html")).text
        (row,) = csv.DictReader(io.StringIO(render(report, ledger, "codecarbon")))
    assert "For 10 s energy or intensity is not known" in text
    assert "the board did not answer" in text
    nothing = (
        "emissions",
        "emissions_rate",
        "gpu_power",
        "gpu_energy",
        "cpu_energy",
        "ram_energy",
        "energy_consumed",
        "pue",
    )
    assert [row[name] for name in nothing] == [""] * len(nothing)


@pytest.mark.parametrize(
    ("reason", "ram_w"),
    [
        (None, 6),
        ("split by CPU time, the idle share shared by 2 jobs", 3),
        ("split by CPU time, the idle share is the box's", 0),
    ],
)
def test_each_line_of_codecarbons_csv_is_of_its_own_job(
    tmp_path: Path, reason: str | None, ram_w: int
) -> None:
    """Two jobs at PUE 1.0 and 2.0 both got 1.5; memory hid in cpu_energy, and a board was called by its UUID."""
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        for job_id, pue, at in (("scitldr-1", 1.0, T0), ("scitldr-2", 2.0, T0 + timedelta(seconds=100))):
            ledger.add_job(submitted(job_id))
            names = {GPU: "NVIDIA A100-SXM4-80GB", "host": "AMD EPYC 7763"}
            ledger.note(job_id, "started", {"boards": list(names), "names": names, "cpus": 64}, "daemon", at)
            for board, energy, meter in (
                (GPU, 3_600_000, "nvml"),
                ("host", 360_000, "codecarbon:cpu_load+ram=6W"),
            ):
                row = interval(
                    at, 10, energy, board=board, job_id=job_id, reason=reason if board == "host" else None
                )
                delta = row.delta.model_copy(update={"meter": meter, "power_w": energy / 10_000})
                grams = energy / 3.6e9 * pue * 200
                ledger.append([row.model_copy(update={"delta": delta, "pue": pue, "grams": grams})])
        report = build(ledger, now=T0 + timedelta(seconds=200))
        lines = list(csv.DictReader(io.StringIO(render(report, ledger, "codecarbon"))))
    assert [line["run_id"] for line in lines] == ["scitldr-1", "scitldr-2"]
    for line, pue in zip(lines, (1.0, 2.0), strict=True):
        assert float(line["pue"]) == pue
        assert float(line["gpu_energy"]) == pytest.approx(0.001 * pue)
        # 36 W of the host, 6 W of them memory, which is of its idle share
        assert float(line["ram_energy"]) == pytest.approx(0.0001 * pue * ram_w / 36)
        assert float(line["cpu_energy"]) == pytest.approx(0.0001 * pue * (36 - ram_w) / 36)
        assert float(line["ram_power"]) == pytest.approx(ram_w * pue)
        assert float(line["emissions"]) == pytest.approx(0.0011 * pue * 0.2)
        assert (line["gpu_model"], line["gpu_count"]) == ("1 x NVIDIA A100-SXM4-80GB", "1")
        assert (line["cpu_model"], line["cpu_count"]) == ("AMD EPYC 7763", "64")


@pytest.mark.parametrize("form", ["json", "csv", "html", "markdown", "codecarbon", "sci", "esrs", "scope2"])
def test_every_format_renders_an_empty_period(tmp_path: Path, form: str) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        text = render(build(ledger, now=T0), ledger, form)
    assert text.endswith("\n") or form == "html"
    assert form in names()
    assert find(form).media_type.partition("/")[0] in ("application", "text")


def test_another_format_is_refused(history: History) -> None:
    ledger, report = history
    with pytest.raises(
        InputError,
        match=r"--format.*choose one of json, csv, html, markdown, codecarbon, boamps, model-card, spdx",
    ):
        render(report, ledger, "docx")


SHORT = """
from carbonsched.report import ReportFormat

def write(report, ledger):
    return f"{report.job_id} {report.totals.spent_g:.1f} g over {ledger.totals(report.job_id).rows} rows\\n"

SHORT = ReportFormat("text/plain", write)
"""


def test_a_site_adds_a_format_by_an_entry_point(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    group = {"carbonsched.report_formats": {"short": "short_report:SHORT"}}
    install(tmp_path, "acme-reports", group, short_report=SHORT)
    ledger, report = history
    assert names()[-2:] == ("ai-act", "short")
    assert find("short").media_type == "text/plain"
    rows = ledger.totals("scitldr-1").rows
    assert render(report, ledger, "short") == f"scitldr-1 {report.totals.spent_g:.1f} g over {rows} rows\n"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_module", "cannot be imported"),
        ("SHORT = print", "is a builtin_function_or_method; it must be a carbonsched.report.ReportFormat"),
    ],
)
def test_a_broken_format_is_one_line_and_takes_no_other_down(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    group = {"carbonsched.report_formats": {"short": "broken_report:SHORT"}}
    install(tmp_path, "acme-broken", group, broken_report=source)
    monkeypatch.delitem(sys.modules, "broken_report", raising=False)
    ledger, report = history
    with pytest.raises(InputError, match=f"acme-broken.*{says}") as caught:
        render(report, ledger, "short")
    assert "\n" not in str(caught.value)
    assert render(report, ledger, "csv").startswith("id,board,")
    assert "short" in names(), "it is listed without an import"


def test_rendering_twice_gives_the_same_bytes(history: History) -> None:
    ledger, report = history
    digests = {hashlib.sha256(render(report, ledger, "html").encode()).hexdigest() for _ in range(2)}
    assert len(digests) == 1

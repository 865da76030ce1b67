"""Recognises by their headers the CSV files that providers export, and reads an intensity from them, for the replay feed.

Electricity Maps (data portal): `Datetime (UTC)`, direct and life-cycle intensity. CarbonCast: `UTC time`, `carbon_intensity`,
and its forecasts, of which the newest of each hour is taken; whether they are direct or lifecycle stands in no header.
ENTSO-E (generation per type, a column or a row for each type) and EIA (six-month balance files of EIA-930, and the API's
rows): the mix times documented factors, see `generation_mix`. Headers were seen in public files and in programs that read them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final
from zoneinfo import ZoneInfo

from carbonsched.csv_text import CsvRow
from carbonsched.errors import InputError
from carbonsched.feeds.generation_mix import FACTORS, Output, Plant, intensities
from carbonsched.feeds.providers.eia import PLANTS as EIA_PLANTS
from carbonsched.feeds.providers.entso_e import PLANTS as ENTSO_E_PLANTS
from carbonsched.model.base import utc
from carbonsched.model.grid import Basis
from carbonsched.units import plain_number

KNOWN: Final = "an export of Electricity Maps, ENTSO-E, EIA or CarbonCast"
_UNKNOWN: Final = frozenset({"", "-", "n/e", "n/a", "nan"})
_HOUR: Final = timedelta(hours=1)
_CENTRAL: Final = ZoneInfo("Europe/Brussels")
_OFFSETS: Final = {"(CET)": timezone(_HOUR), "(CEST)": timezone(2 * _HOUR), "(UTC)": UTC}
_FORMATS: Final = (
    "%Y-%m-%d %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d.%m.%Y %H:%M",
    "%Y-%m-%dT%H",
)
_EIA_FORMATS: Final = ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M")
_TYPES: Final = {
    "biomass": "B01",
    "fossil brown coal/lignite": "B02",
    "fossil coal-derived gas": "B03",
    "fossil gas": "B04",
    "fossil hard coal": "B05",
    "fossil oil": "B06",
    "fossil oil shale": "B07",
    "fossil peat": "B08",
    "geothermal": "B09",
    "hydro pumped storage": "B10",
    "hydro run-of-river and poundage": "B11",
    "hydro run-of-river and pondage": "B11",
    "hydro water reservoir": "B12",
    "marine": "B13",
    "nuclear": "B14",
    "other renewable": "B15",
    "solar": "B16",
    "waste": "B17",
    "wind offshore": "B18",
    "wind onshore": "B19",
    "other": "B20",
    "energy storage": "B25",
}
_BALANCE: Final = "Net Generation (MW) from "
_SOURCES: Final = (
    ("coal", Plant.COAL),
    ("natural gas", Plant.GAS),
    ("nuclear", Plant.NUCLEAR),
    ("all petroleum", Plant.OIL),
    ("hydropower", Plant.HYDRO),
    ("solar", Plant.SOLAR),
    ("wind", Plant.WIND_ONSHORE),
    ("geothermal", Plant.GEOTHERMAL),
    ("battery storage", Plant.STORAGE),
    ("pumped storage", Plant.STORAGE),
    ("other energy storage", Plant.STORAGE),
    ("unknown energy storage", Plant.STORAGE),
)


@dataclass(frozen=True, slots=True)
class Point:
    """An intensity that an export tells of.

    Example:
        >>> Point(datetime(2026, 1, 1, tzinfo=UTC), 120.0, None, "2026-01-01 00:00:00,120").forecast is None
        True
    """

    at: datetime
    g_per_kwh: float
    forecast: float | None
    raw: str
    """The row that it stands in; empty where it is made of several."""


@dataclass(frozen=True, slots=True)
class Export:
    """What an export tells.

    Example:
        >>> Export([], None).note
        ''
    """

    points: list[Point]
    basis: Basis | None
    """None: the file does not say."""
    note: str = ""
    """Where the values were made here: of what."""


@dataclass(frozen=True, slots=True)
class _File:
    where: str
    header: tuple[str, ...]
    rows: Sequence[CsvRow]
    zone: str
    basis: Basis

    def column(self, *starts: str) -> int | None:
        found = (i for i, name in enumerate(self.header) if name.lower().startswith(starts))
        return next(found, None)

    def refuse(self, row: CsvRow, problem: str, hint: str) -> InputError:
        return InputError(f"{self.where}, line {row.line}", problem, hint)

    def cell(self, row: CsvRow, column: int) -> str:
        if len(row.cells) != len(self.header):
            problem = f"has {len(row.cells)} columns, the header {len(self.header)}"
            raise self.refuse(row, problem, "give every row all columns")
        return row.cells[column].strip()

    def number(self, row: CsvRow, column: int) -> float | None:
        text = self.cell(row, column)
        if text.lower() in _UNKNOWN:
            return None
        try:
            return plain_number(text.replace(",", ""))
        except ValueError as e:
            raise self.refuse(row, f"{self.header[column]} is not a number: {text[:40]!r}", "fix it") from e

    def time(
        self,
        row: CsvRow,
        text: str,
        zone: timezone | ZoneInfo = UTC,
        *,
        second: bool = False,
        formats: Sequence[str] = _FORMATS,
    ) -> datetime:
        """second: an hour that comes twice in autumn, the second time."""
        for marker, offset in _OFFSETS.items():
            if marker in text:
                text, zone = text.replace(marker, ""), offset
        for written in (*formats, ""):
            try:
                # the zone is another cell's, or the header's
                at = (
                    datetime.strptime(text.strip(), written)  # noqa: DTZ007
                    if written
                    else datetime.fromisoformat(text[:23])
                )
                return utc(at.replace(tzinfo=zone, fold=int(second)))
            except (ValueError, OverflowError):
                continue
        raise self.refuse(row, f"{text[:40]!r} is not a time of this export", "fix it")

    def mine(self, column: int) -> list[CsvRow]:
        """The rows of the zone, where the file has several."""
        areas = {self.cell(row, column) for row in self.rows}
        names = {area: area.rpartition("|")[2] for area in areas}
        wanted = {self.zone.upper(), self.zone.rpartition("-")[2].upper()}
        found = [a for a in areas if len(areas) == 1 or a == self.zone or names[a].upper() in wanted]
        if len(found) != 1:
            said = ", ".join(sorted(names.values())[:12])
            raise InputError(
                "zone", f"{self.where} is of several areas, {self.zone!r} is none", f"set one of {said}"
            )
        return [row for row in self.rows if self.cell(row, column) == found[0]]

    def mixed(self, outputs: list[Output]) -> Export:
        if self.basis not in FACTORS:
            hint = f"set it to {' or '.join(FACTORS)}"
            raise InputError("basis", f"a generation mix has no {self.basis} intensity", hint)
        factors = FACTORS[self.basis]
        found = intensities(outputs, factors.g_per_kwh)
        return Export([Point(start, g, None, "") for start, _, g in found], self.basis, factors.note)


def read_export(
    where: str, header: tuple[str, ...], rows: Sequence[CsvRow], zone: str, basis: Basis
) -> Export | None:
    """What the file tells on `basis`, ascending; None where its header is of no export that is known.

    Raises InputError: a cell that is not what the export has, a zone or basis that it does not tell.
    """
    file = _File(where, header, rows, zone, basis)
    for reader in (_electricity_maps, _carboncast, _entso_e_types, _entso_e_columns, _eia_rows, _eia_balance):
        found = reader(file)
        if found is not None:
            return found
    return None


def _electricity_maps(file: _File) -> Export | None:
    at = file.column("datetime (utc)")
    columns = {
        Basis.AVERAGE_DIRECT: file.column("carbon intensity gco₂eq/kwh (direct)"),
        Basis.AVERAGE_LIFECYCLE: file.column(
            "carbon intensity gco₂eq/kwh (life cycle)", "carbon intensity gco₂eq/kwh (lca)"
        ),
    }
    if at is None or not any(column is not None for column in columns.values()):
        return None
    column = columns.get(file.basis)
    if column is None:
        raise InputError("basis", f"{file.where} has no {file.basis} column", "set zone.basis to what it has")
    area = file.column("zone id")
    rows = file.rows if area is None else file.mine(area)
    return Export(_plain(file, rows, at, column), file.basis)


def _carboncast(file: _File) -> Export | None:
    at, value = file.column("utc time"), file.column("carbon_intensity")
    forecast = None
    if at is None and file.header[:2] == ("datetime", "carbon_intensity_actual"):
        at, forecast = 0, file.column("avg_carbon_intensity_forecast")
    if at is None or value is None:
        return None
    return Export(_plain(file, file.rows, at, value, forecast), None)


def _plain(
    file: _File, rows: Sequence[CsvRow], at: int, value: int, forecast: int | None = None
) -> list[Point]:
    """One point a row; of several of one time the last, which is the newest forecast."""
    found: dict[datetime, Point] = {}
    for row in rows:
        time, known = file.time(row, file.cell(row, at)), file.number(row, value)
        ahead = None if forecast is None else file.number(row, forecast)
        if known is not None:
            found[time] = Point(time, known, ahead, row.raw)
    return [found[time] for time in sorted(found)]


def _entso_e_types(file: _File) -> Export | None:
    mtu, kind, power = (
        file.column("mtu"),
        file.column("production type"),
        file.column("generation (mw)", "generation(mw)"),
    )
    area = file.column("area")
    if mtu is None or kind is None or power is None:
        return None
    clock = _Clock(file, mtu)
    outputs = []
    for row in file.rows if area is None else file.mine(area):
        code = _TYPES.get(file.cell(row, kind).lower(), file.cell(row, kind))
        outputs += clock.output(row, code, power)
    return file.mixed(outputs)


def _entso_e_columns(file: _File) -> Export | None:
    mtu, area, ends = file.column("mtu"), file.column("area"), "- actual aggregated [mw]"
    columns = {
        i: name.lower().removesuffix(ends).strip()
        for i, name in enumerate(file.header)
        if name.lower().endswith(ends)
    }
    if mtu is None or area is None or not columns:
        return None
    clock = _Clock(file, mtu)
    outputs = []
    for row in file.mine(area):
        for i, name in columns.items():
            outputs += clock.output(row, _TYPES.get(name, name), i)
    return file.mixed(outputs)


class _Clock:
    """Intervals like `25/10/2026 02:00:00 (CET) - …`, in central European time where nothing else is said."""

    def __init__(self, file: _File, column: int) -> None:
        self._file, self._column = file, column
        self._zone = UTC if "utc" in file.header[column].lower() else _CENTRAL
        self._seen: set[tuple[str, str]] = set()
        self._read: dict[tuple[str, bool], tuple[datetime, datetime]] = {}

    def output(self, row: CsvRow, code: str, power: int) -> list[Output]:
        text = self._file.cell(row, self._column)
        again = (code, text) in self._seen
        self._seen.add((code, text))
        mw = self._file.number(row, power)
        if (text, again) not in self._read:
            self._read[text, again] = self._interval(row, text, again=again)
        at, until = self._read[text, again]
        return [] if mw is None else [Output(at, until, code, ENTSO_E_PLANTS.get(code, Plant.OTHER), mw)]

    def _interval(self, row: CsvRow, text: str, *, again: bool) -> tuple[datetime, datetime]:
        start, _, end = text.partition(" - ")
        ambiguous = [part.replace("(CET/CEST)", "") for part in (start, end)]
        zone = UTC if "(UTC)" in text else self._zone
        at, until = (self._file.time(row, part, zone, second=again) for part in ambiguous)
        if until <= at:  # the hour that comes twice ends in itself
            until = self._file.time(row, ambiguous[1], zone, second=True)
        return at, until


def _eia_rows(file: _File) -> Export | None:
    names = ("period", "respondent", "fueltype", "value")
    if not set(names) <= set(file.header):
        return None
    period, area, kind, value = (file.header.index(name) for name in names)
    outputs = []
    for row in file.mine(area):
        end, mwh, code = file.time(row, file.cell(row, period)), file.number(row, value), file.cell(row, kind)
        if mwh is not None:
            outputs.append(Output(end - _HOUR, end, code, EIA_PLANTS.get(code, Plant.OTHER), mwh))
    return file.mixed(outputs)


def _in_parts(name: str, known: Iterable[str]) -> bool:
    """Whether a file that has it in one has it in parts, too: `Solar` beside `Solar with …` and `Solar without …`."""
    whole = name.removesuffix("and Pumped Storage").strip()
    parts = (f"{whole} Excluding", f"{whole} with")
    return not name.startswith(parts) and any(other.startswith(parts) for other in known)


def _eia_balance(file: _File) -> Export | None:
    at, area = file.column("utc time at end of hour"), file.column("balancing authority")
    names = [name for name in file.header if name.startswith(_BALANCE) and not name.endswith("(Imputed)")]
    if at is None or area is None or not names:
        return None
    # where EIA has cleaned a value, that one
    columns = {name.removesuffix(" (Adjusted)"): file.header.index(name) for name in sorted(names)}
    outputs = []
    for row in file.mine(area):
        end = file.time(row, file.cell(row, at), formats=_EIA_FORMATS)
        known = {name: mwh for name, i in columns.items() if (mwh := file.number(row, i)) is not None}
        for name, mwh in known.items():
            if _in_parts(name, known):
                continue
            source = name.removeprefix(_BALANCE).lower()
            plant = next((plant for start, plant in _SOURCES if source.startswith(start)), Plant.OTHER)
            outputs.append(Output(end - _HOUR, end, name, plant, mwh))
    return file.mixed(outputs)

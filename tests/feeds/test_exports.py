"""Small files of the shapes that providers export; the rows are invented, the headers are theirs."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from support.fuzz import EDITS, FUZZ, damaged, read_or_refuse
from support.manual_clock import ManualClock

from carbonsched.errors import InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.replay import ReplaySettings
from carbonsched.feeds.trace import Trace, read_trace
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind

DIRECT, LIFECYCLE = Basis.AVERAGE_DIRECT, Basis.AVERAGE_LIFECYCLE
T0 = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, QUARTER = timedelta(hours=1), timedelta(minutes=15)
MAPS = """Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),Carbon intensity gCO₂eq/kWh (Life cycle),\
Carbon-free energy percentage (CFE%),Renewable energy percentage (RE%),Data source,Data estimated,Data estimation method
2026-01-01 00:00:00,Sweden,Sweden,SE,2.5,30.0,99.4,60.1,svk.se,true,X
2026-01-01 01:00:00,Sweden,Sweden,SE,,,99.4,60.1,svk.se,true,X
2026-01-01 02:00:00,Sweden,Sweden,SE,2.6,30.3,99.4,60.1,svk.se,false,
"""
OLD_MAPS = """Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA),Low Carbon Percentage
2026-01-01 00:00:00,France,France,FR,50,80,90
2026-01-01 01:00:00,France,France,FR,60,90,90
"""
CARBONCAST = """,UTC time,carbon_intensity,coal,nat_gas
0,2026-01-01 00:00:00,164.27,9.0,6574.0
1,2026-01-01 01:00:00,200.72,11.0,9094.0
"""
CARBONCAST_FORECAST = """datetime,carbon_intensity_actual,avg_carbon_intensity_forecast
2026-01-01T00:00:00.000000000,564.0,553.7
2026-01-01T01:00:00.000000000,570.0,557.1
2026-01-01T01:00:00.000000000,570.0,560.2
2026-01-01T02:00:00.000000000,593.0,
"""
TYPES = """"MTU (CET/CEST)","Area","Production Type","Generation (MW)"
"01/01/2026 01:00:00 - 01/01/2026 01:15:00","BZN|FR","Nuclear","900"
"01/01/2026 01:00:00 - 01/01/2026 01:15:00","BZN|FR","Fossil Gas","100"
"01/01/2026 01:00:00 - 01/01/2026 01:15:00","BZN|FR","Hydro Pumped Storage","5,000"
"01/01/2026 01:00:00 - 01/01/2026 01:15:00","BZN|FR","Marine","n/e"
"01/01/2026 01:15:00 - 01/01/2026 01:30:00","BZN|FR","Nuclear","900"
"01/01/2026 01:15:00 - 01/01/2026 01:30:00","BZN|FR","Fossil Gas","900"
"""
AUTUMN = """"MTU (CET/CEST)","Area","Production Type","Generation (MW)"
"25/10/2026 02:00:00 (CEST) - 25/10/2026 02:00:00 (CET)","BZN|FR","Nuclear","9"
"25/10/2026 02:00:00 (CET) - 25/10/2026 03:00:00 (CET)","BZN|FR","Nuclear","9"
"""
COLUMNS = """"Area","MTU","Fossil Gas  - Actual Aggregated [MW]","Nuclear  - Actual Aggregated [MW]","Hydro Pumped Storage  - Actual Consumption [MW]"
"BZN|FR","25.10.2026 02:00 - 25.10.2026 03:00 (CET/CEST)","100","900","n/e"
"BZN|FR","25.10.2026 02:00 - 25.10.2026 03:00 (CET/CEST)","100","900","50"
"BZN|FR","25.10.2026 03:00 - 25.10.2026 04:00 (CET/CEST)","900","900","-"
"""
BALANCE = """Balancing Authority,Data Date,Hour Number,Local Time at End of Hour,UTC Time at End of Hour,Demand (MW),Net Generation (MW) from Coal,Net Generation (MW) from Natural Gas,Net Generation (MW) from Solar,Net Generation (MW) from Natural Gas (Adjusted),Net Generation (MW) from Natural Gas (Imputed),Net Generation (MW) from Solar without Integrated Battery Storage,Net Generation (MW) from Solar with Integrated Battery Storage,Net Generation (MW) from Battery Storage
CISO,12/31/2025,17,12/31/2025 5:00:00 PM,01/01/2026 1:00:00 AM,"9,000",,7,"1,000","1,000",,600,400,-800
CISO,12/31/2025,18,12/31/2025 6:00:00 PM,01/01/2026 2:00:00 AM,"9,000",,7,"1,000","3,000",,600,400,-800
PJM,12/31/2025,18,12/31/2025 6:00:00 PM,01/01/2026 2:00:00 AM,"9,000",5,,,,,,,
"""
API = """period,respondent,respondent-name,fueltype,type-name,value,value-units
2026-01-01T02,CISO,California,NG,Natural gas,3000,megawatthours
2026-01-01T02,CISO,California,SUN,Solar,1000,megawatthours
2026-01-01T01,CISO,California,NG,Natural gas,1000,megawatthours
2026-01-01T01,CISO,California,SUN,Solar,1000,megawatthours
"""


def mix(gas: float, other: float, factor: float) -> float:
    return (gas * 490 + other * factor) / (gas + other)


SOLAR = (mix(1, 1, 44.5), mix(3, 1, 44.5))
CASES = {
    "maps": (MAPS, LIFECYCLE, (T0, 2 * HOUR), (30.0, 30.3)),
    "maps direct": (MAPS, DIRECT, (T0, 2 * HOUR), (2.5, 2.6)),
    "maps of before 2025": (OLD_MAPS, LIFECYCLE, (T0, HOUR), (80.0, 90.0)),
    "carboncast": (CARBONCAST, DIRECT, (T0, HOUR), (164.27, 200.72)),
    "carboncast forecasts": (CARBONCAST_FORECAST, DIRECT, (T0, HOUR), (564.0, 570.0, 593.0)),
    "entso-e": (TYPES, LIFECYCLE, (T0, QUARTER), (mix(1, 9, 12), mix(9, 9, 12))),
    "entso-e direct": (TYPES, DIRECT, (T0, QUARTER), (37.0, 185.0)),
    "entso-e in autumn": (AUTUMN, LIFECYCLE, (datetime(2026, 10, 25, tzinfo=UTC), HOUR), (12.0, 12.0)),
    "entso-e of before 2024": (
        COLUMNS,
        LIFECYCLE,
        (datetime(2026, 10, 25, tzinfo=UTC), HOUR),
        (mix(1, 9, 12), mix(1, 9, 12), mix(9, 9, 12)),
    ),
    "eia": (BALANCE, LIFECYCLE, (T0, HOUR), SOLAR),
    "eia's rows": (API, LIFECYCLE, (T0, HOUR), SOLAR),
}


def read(tmp_path: Path, text: str, basis: Basis = LIFECYCLE, zone: str = "US-CAL-CISO") -> Trace:
    file = tmp_path / "export.csv"
    file.write_text(text, encoding="utf-8")
    return read_trace(file, zone, basis)


@pytest.mark.parametrize("case", CASES)
def test_an_export_is_known_by_its_header(tmp_path: Path, case: str) -> None:
    text, basis, (start, step), values = CASES[case]
    found = read(tmp_path, text, basis)
    assert found.times == tuple(start + i * step for i in range(len(values)))
    assert found.g_per_kwh == pytest.approx(values)
    assert ("factors" in found.note) is (case.startswith(("entso-e", "eia")))
    assert all(len(one) == 64 for one in found.sha256)


def test_the_newest_forecast_of_an_hour_is_taken(tmp_path: Path) -> None:
    assert read(tmp_path, CARBONCAST_FORECAST).forecast == (553.7, 560.2, None)


def test_the_replay_of_a_mix_says_that_it_is_an_estimate(tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text(BALANCE)
    keys = {"provider": "replay", "file": str(tmp_path / "export.csv"), "zone": "CISO", "label": "old"}
    site = Site(Zone(name="XX", basis=DIRECT), ManualClock(T0), tmp_path)
    reading = ReplaySettings.model_validate(keys).build(site).poll().readings[-1]
    assert (reading.source.kind, reading.source.basis) == (Kind.ESTIMATED, DIRECT)
    assert reading.source.note == "old; production mix × direct factors, IPCC AR5 A.III.2"


@pytest.mark.parametrize(
    ("text", "basis", "zone", "words"),
    [
        (BALANCE, LIFECYCLE, "ERCO", "zone: .*set one of CISO, PJM"),
        (BALANCE, Basis.MARGINAL_DIRECT, "CISO", "basis: a generation mix has no marginal-direct"),
        (MAPS, Basis.MARGINAL_DIRECT, "SE", "basis: .* has no marginal-direct column"),
        (
            MAPS.replace("2.5,30.0", "2.5,low"),
            LIFECYCLE,
            "SE",
            "line 2: Carbon intensity .* is not a number: 'low'",
        ),
        (MAPS.replace("2.5,30.0", "2.5,-3"), LIFECYCLE, "SE", "must be 0 or more, is -3"),
        (CARBONCAST.replace("2026-01-01 00", "then 00"), DIRECT, "XX", "line 2: 'then 00.* is not a time"),
        (TYPES.replace('"900"', '"900","x"'), LIFECYCLE, "FR", "line 2: has 5 columns, the header 4"),
        (API.replace("2026-01-01T01", "2026-01-01T02"), LIFECYCLE, "CISO", "holds 1 value"),
        (
            "when,what\n1,2\n",
            LIFECYCLE,
            "XX",
            "or give an export of Electricity Maps, ENTSO-E, EIA or CarbonCast",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str, basis: Basis, zone: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read(tmp_path, text, basis, zone)


@pytest.mark.fuzz
@pytest.mark.parametrize(
    "case", ["maps", "carboncast forecasts", "entso-e", "entso-e of before 2024", "eia", "eia's rows"]
)
@FUZZ
@given(edits=EDITS)
def test_any_bytes_in_an_export_are_read_or_refused(
    tmp_path: Path, tried: Callable[[], None], case: str, edits: list[tuple[int, int, bytes]]
) -> None:
    text, basis, *_ = CASES[case]
    file = tmp_path / "export.csv"
    for data in damaged(text.encode(), edits):
        file.write_bytes(data)
        tried()
        found = read_or_refuse(lambda: read_trace(file, "CISO", basis))
        if found is not None:
            assert list(found.times) == sorted(set(found.times))

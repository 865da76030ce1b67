import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import pycountry
import pytest
from support.manual_clock import ManualClock

from carbonsched.errors import InputError
from carbonsched.feeds.base import Site
from carbonsched.feeds.static import StaticFeed, StaticSettings, country_mix
from carbonsched.feeds.zone import Zone
from carbonsched.model.grid import Basis, Kind


def test_a_countrys_value_is_the_one_in_codecarbons_file() -> None:
    raw = files("codecarbon").joinpath("data/private_infra/global_energy_mix.json").read_bytes()
    expected = json.loads(raw)["DEU"]
    value, note, sha256 = country_mix("deu", "feeds[0].country")
    assert value == expected["carbon_intensity"]
    assert f"Germany in {expected['year']}" in note
    assert sha256 == hashlib.sha256(raw).hexdigest()


MIX = json.loads(files("codecarbon").joinpath("data/private_infra/global_energy_mix.json").read_bytes())


@pytest.mark.parametrize(
    ("country", "code"),
    [
        *(("UK", "GBR"), ("EL", "GRC"), ("AT", "AUT"), ("FR", "FRA"), ("gb", "GBR"), ("us", "USA")),
        *(("Germany", "DEU"), ("united kingdom", "GBR"), ("Great  Britain", "GBR"), ("Czechia", "CZE")),
        *(("South Korea", "KOR"), ("Russia", "RUS"), ("Turkey", "TUR"), ("Türkiye", "TUR"), ("fra", "FRA")),
        *(("Federal Republic of Germany", "DEU"), ("Niger", "NER"), ("Nigeria", "NGA"), ("Congo", "COG")),
    ],
)
def test_a_country_is_known_by_its_codes_and_names(country: str, code: str) -> None:
    value, note, _ = country_mix(country, "x")
    assert f"of {MIX[code]['country_name']} in" in note
    assert value == MIX[code]["carbon_intensity"]


def test_every_code_and_name_of_iso_3166_is_its_own_country_or_refused() -> None:
    """Two letters were once answered with the nearest three, which are another country's."""
    for each in pycountry.countries:
        for said in (each.alpha_2, each.alpha_3, each.name, each.alpha_2.lower()):
            if each.alpha_3 in MIX:
                assert f" of {MIX[each.alpha_3]['country_name']} in " in country_mix(said, "x")[1]
            else:
                with pytest.raises(InputError, match=f"is {each.alpha_3}, for which codecarbon has no data"):
                    country_mix(said, "x")
    for row in MIX.values():
        assert f" of {row['country_name']} in " in country_mix(row["country_name"], "x")[1]


@pytest.mark.parametrize("country", ["DEE", "Germny", "Austrlia", "GER", "XX", "1", "", "EU", "Korea"])
def test_an_unknown_country_is_not_quietly_another_or_the_world(country: str) -> None:
    with pytest.raises(InputError, match=r"feeds\[2\]\.country") as caught:
        country_mix(country, "feeds[2].country")
    assert str(caught.value).endswith(
        "is not a country's code or name; write it like DEU, DE or Germany (ISO 3166)"
    )


@pytest.mark.parametrize("stated", [False, True], ids=["stands in", "is the source"])
def test_a_constant_holds_the_year_round_and_is_called_one(stated: bool) -> None:
    clock = ManualClock(datetime(2026, 12, 31, 23, tzinfo=UTC))
    feed = StaticFeed(
        clock, name="s", zone="DE", basis=Basis.AVERAGE_LIFECYCLE, g_per_kwh=380.0, note="mix of 2023"
    )
    if stated:
        feed.as_source()
    before = feed.poll().readings
    clock.advance(7200)
    after = feed.poll().readings
    assert before[-1] == after[0]
    assert after[0].end == after[1].start == datetime(2027, 1, 1, tzinfo=UTC)
    assert {(r.g_per_kwh, r.source.kind, r.source.note) for r in (*before, *after)} == {
        (380.0, Kind.STATIC if stated else Kind.FALLBACK, "mix of 2023")
    }


def test_it_loads_no_pandas() -> None:
    program = "import sys\nfrom carbonsched.feeds.static import country_mix\ncountry_mix('FRA', 'x')\nprint('pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("zone", "country"),
    [
        ("DE", "Germany"),
        ("GB", "United Kingdom"),
        ("DK-DK1", "Denmark"),
        ("NO2", "Norway"),
        ("SE_3", "Sweden"),
    ],
)
def test_the_zone_tells_the_country_where_none_is_given(tmp_path: Path, zone: str, country: str) -> None:
    site = Site(Zone(name=zone), ManualClock(datetime(2026, 3, 1, tzinfo=UTC)), tmp_path)
    reading = StaticSettings(provider="static").build(site).poll().readings[-1]
    assert f"mean mix of {country} in" in reading.source.note


@pytest.mark.parametrize("zone", ["unknown", "home", "XX", "DE-LU", "CAISO", "DEU", "no", "10YFR-RTE------C"])
def test_a_zone_of_no_country_or_of_two_is_refused(tmp_path: Path, zone: str) -> None:
    site = Site(Zone(name=zone), ManualClock(datetime(2026, 3, 1, tzinfo=UTC)), tmp_path)
    with pytest.raises(InputError, match=r"^country: is missing, and the zone .*; give either country"):
        StaticSettings(provider="static").build(site)

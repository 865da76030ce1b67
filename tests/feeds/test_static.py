import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib.resources import files

import pytest
from support.manual_clock import ManualClock

from carbonsched.errors import InputError
from carbonsched.feeds.static import StaticFeed, country_mix
from carbonsched.model.grid import Basis, Kind


def test_a_countrys_value_is_the_one_in_codecarbons_file() -> None:
    raw = files("codecarbon").joinpath("data/private_infra/global_energy_mix.json").read_bytes()
    expected = json.loads(raw)["DEU"]
    value, note, sha256 = country_mix("deu", "feeds[0].country")
    assert value == expected["carbon_intensity"]
    assert f"Germany in {expected['year']}" in note
    assert sha256 == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize(
    ("country", "hint"),
    [("DEE", "did you mean 'D"), ("Germany", "did you mean 'DEU'?"), ("1", "write it like DEU")],
)
def test_an_unknown_country_is_not_quietly_the_world(country: str, hint: str) -> None:
    with pytest.raises(InputError, match=r"feeds\[2\]\.country") as caught:
        country_mix(country, "feeds[2].country")
    assert hint in str(caught.value)


def test_a_constant_holds_the_year_round_and_is_never_more_than_a_fallback() -> None:
    clock = ManualClock(datetime(2026, 12, 31, 23, tzinfo=UTC))
    feed = StaticFeed(
        clock, name="s", zone="DE", basis=Basis.AVERAGE_LIFECYCLE, g_per_kwh=380.0, note="mix of 2023"
    )
    before = feed.poll().readings
    clock.advance(7200)
    after = feed.poll().readings
    assert before[-1] == after[0]
    assert after[0].end == after[1].start == datetime(2027, 1, 1, tzinfo=UTC)
    assert {(r.g_per_kwh, r.source.kind, r.source.note) for r in (*before, *after)} == {
        (380.0, Kind.FALLBACK, "mix of 2023")
    }


def test_it_loads_no_pandas() -> None:
    program = "import sys\nfrom carbonsched.feeds.static import country_mix\ncountry_mix('FRA', 'x')\nprint('pandas' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"

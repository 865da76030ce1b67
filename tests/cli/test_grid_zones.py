"""`grid --zones`: a document a script can read, a table for people, one line where nothing is known."""

from support.command import cli


def test_a_country_lists_its_zones_once() -> None:
    rows = cli("grid", "--zones", "DNK", "--json").doc["zones"]
    assert [row["zone"] for row in rows] == ["DK", "DK-DK1", "DK-DK2"]
    assert {row["country"] for row in rows} == {"DK"}


def test_coordinates_tell_the_place_and_the_distance() -> None:
    [row] = cli("grid", "--zones", "-33.9,151.2", "--json").doc["zones"]
    assert (row["zone"], row["name"], row["place"]) == ("AU-NSW", "New South Wales", "Sydney")
    assert 0 < row["distance_km"] < 10


def test_for_people() -> None:
    ran = cli("grid", "--zones", "eu-central-1")
    assert ran.code == 0
    assert "Germany" in ran.out
    assert "AWS eu-central-1, Frankfurt" in ran.out


def test_a_word_that_nobody_knows_is_one_line_and_2() -> None:
    ran = cli("grid", "--zones", "Atlantis")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("carbonsched: --zones: 'Atlantis'")

"""Countries by code and name, and nothing else."""

import pytest

from carbonsched.feeds.countries import country_called, every_country


def test_a_code_is_one_countrys() -> None:
    for country in every_country():
        assert country_called(country.alpha_2.lower()) == country
        assert country_called(f" {country.alpha_3} ") == country


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("UK", "GB"),
        ("el", "GR"),
        ("Germany", "DE"),
        ("south  korea", "KR"),
        ("Kosovo", "XK"),
        ("Türkiye", "TR"),
    ],
)
def test_what_people_say(said: str, code: str) -> None:
    found = country_called(said)
    assert found is not None
    assert found.alpha_2 == code


@pytest.mark.parametrize("said", ["", " ", "Atlantis", "Korea", "DEE", "\0"])
def test_what_is_no_country(said: str) -> None:
    assert country_called(said) is None


def test_names_are_told_apart() -> None:
    names = [country.name for country in every_country()]
    assert len(set(names)) == len(names)

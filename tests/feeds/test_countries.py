"""Countries by code and name, and nothing else."""

import pytest

from carbonsched.errors import InputError
from carbonsched.feeds.countries import check_country, country_called, every_country


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


@pytest.mark.parametrize(
    ("zone", "provider", "refused"),
    [
        ("DE", "neso", True),
        ("fr", "neso", True),
        ("US-CAL-CISO", "neso", True),
        ("Germany", "rte", True),
        ("GB", "neso", False),
        ("gb-nir", "neso", False),
        ("UK", "neso", False),
        ("13", "neso", False),
        ("Mars", "neso", False),
        ("FR", "rte", False),
        ("GB", "rte", True),
    ],
)
def test_a_provider_of_one_country_is_refused_in_another(zone: str, provider: str, refused: bool) -> None:
    alpha_2 = {"neso": "GB", "rte": "FR"}[provider]
    if not refused:
        check_country(zone, alpha_2, provider)
        return
    with pytest.raises(
        InputError, match=f"provider: {provider} tells of {alpha_2} alone, and zone.name is '{zone}'"
    ):
        check_country(zone, alpha_2, provider)

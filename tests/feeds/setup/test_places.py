"""The zone of a place, offline: the tables as they are, what people type, and what nobody can know."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbonsched.errors import InputError
from carbonsched.feeds.countries import country_called, every_country
from carbonsched.feeds.setup.places import Found, find, places, search


def test_every_row_is_found_by_its_name_and_lies_in_a_country() -> None:
    for place in places():
        found = find(place.name)
        assert found.zone.key == place.zone, place
        assert country_called(found.zone.country) == found.country
        assert -90 <= place.latitude <= 90
        assert -180 <= place.longitude <= 180


def test_every_country_is_found_by_its_codes_and_no_other_zone_by_them() -> None:
    for country in every_country():
        assert find(country.alpha_2).country == country
        assert find(country.alpha_3).country == country
    assert {found.zone.country for found in map(find, ("GBR", "uk", "United Kingdom"))} == {"GB"}


@pytest.mark.parametrize(
    ("said", "zone"),
    [
        ("Germany", "DE"),
        ("de", "DE"),
        ("DEU", "DE"),
        ("Berlin, Germany", "DE"),
        ("52.5,13.4", "DE"),
        ("52.5 13.4", "DE"),
        ("52.5° N, 13.4° E", "DE"),
        ("33.9S 151.2E", "AU-NSW"),
        ("(37.4, -122.1)", "US-CAL-CISO"),
        ("37.4N;122.1w", "US-CAL-CISO"),
        ("Amazon eu-west-1", "IE"),
        ("-33.9, 151.2", "AU-NSW"),
        ("eu-central-1", "DE"),
        ("EU-CENTRAL-1a", "DE"),
        ("westeurope", "NL"),
        ("europe-west4-b", "NL"),
        ("aws us-east-1", "US-MIDA-PJM"),
        ("Google Cloud us-east4", "US-MIDA-PJM"),
        ("dk1", "DK-DK1"),
        ("DK-DK1", "DK-DK1"),
        ("CISO", "US-CAL-CISO"),
        ("sao paulo", "BR-CS"),
        ("Krakow", "PL"),
        ("Scotland", "GB"),
        ("Belfast", "GB-NIR"),
        ("MIT", "US-NE-ISNE"),
    ],
)
def test_what_people_type(said: str, zone: str) -> None:
    assert find(said).zone.key == zone


def test_coordinates_tell_the_place_and_how_far_it_is() -> None:
    found = find("52.4,13.1")
    assert found.place is not None
    assert found.place.name == "Berlin"
    assert found.km == pytest.approx(24, abs=2)
    assert "km away" in found.how
    berlin, paris = find("Berlin").place, find("Paris").place
    assert berlin is not None
    assert paris is not None
    assert berlin.km_to(paris.latitude, paris.longitude) == pytest.approx(878, abs=4)


def test_a_border_that_is_near_is_told() -> None:
    assert "Stuttgart in DE is" in find("48.6,7.8").how  # Kehl, on the German side of the Rhine
    assert "border" not in find("52.5,13.4").how


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("91,0", "lies on no globe; write latitude,longitude"),
        ("0,181", "lies on no globe"),
        ("-80,0", "km away; name a zone"),
        ("Berln", "did you mean Berlin"),
        ("Cambridge", "did you mean Cambridge (England), Cambridge (Massachusetts)"),
        ("Atlantis", "is no country, city, region or coordinates known here"),
        ("Paris, Germany", "is no country"),
        ("", "is no country"),
        ("nan,nan", "is no country"),
    ],
)
def test_what_is_not_known_is_one_line_with_what_is_close(said: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        find(said)
    assert problem in str(caught.value)
    assert str(caught.value).startswith("--place: ")


def test_a_country_of_several_zones_lists_them() -> None:
    found = find("Denmark")
    assert (found.zone.key, [zone.key for zone in found.parts]) == ("DK", ["DK-DK1", "DK-DK2"])


@pytest.mark.parametrize(
    ("word", "zones"),
    [
        ("pjm", {"US-MIDA-PJM"}),
        ("korea", {"KR", "KP"}),
        ("Norway", {"NO", *(f"NO-NO{n}" for n in range(1, 6))}),
    ],
)
def test_search(word: str, zones: set[str]) -> None:
    assert {one.zone.key if isinstance(one, Found) else one.key for one in search(word)} == zones


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(
        st.text(max_size=30),
        st.tuples(st.floats(-95, 95), st.floats(-190, 190)).map(lambda at: f"{at[0]:.3f},{at[1]:.3f}"),
    )
)
def test_anything_is_a_zone_or_one_line(said: str) -> None:
    try:
        said_of_it = find(said).how
    except InputError as e:
        said_of_it = str(e)
    assert said_of_it.isprintable()

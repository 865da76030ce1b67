"""Each offer against the provider's own settings: of every zone and place, what is offered can be built."""

import pytest

from carbonsched.cli.grid_setup import built
from carbonsched.config import FEEDS
from carbonsched.feeds.countries import every_country
from carbonsched.feeds.setup.coverage import TERMS, Offer, offers
from carbonsched.feeds.setup.places import Found, find, places

COVERED = sorted(set(TERMS) & set(FEEDS.built_in))


def everywhere() -> dict[str, list[tuple[Found, Offer]]]:
    found: dict[str, list[tuple[Found, Offer]]] = {}
    said = {place.name: None for place in places()} | {country.alpha_2: None for country in every_country()}
    for place in map(find, said):
        for offer in offers(place):
            found.setdefault(offer.provider, []).append((place, offer))
    return found


EVERYWHERE = everywhere()


@pytest.mark.parametrize("provider", COVERED)
def test_what_is_offered_can_be_built(provider: str) -> None:
    once = {tuple(offer.keys.items()): (place, offer) for place, offer in EVERYWHERE[provider]}
    for place, offer in once.values():
        made = built(offer, place)
        assert made is not None
        if "basis" in offer.keys:
            assert made.basis == offer.keys["basis"], f"{provider} takes another basis than it is asked for"


@pytest.mark.parametrize("provider", COVERED)
def test_an_account_is_told_where_the_provider_wants_a_secret(provider: str) -> None:
    wants = {"token_file", "password_file"} & set(FEEDS.model(provider).model_fields)
    assert bool(wants) == bool(TERMS[provider].account)


@pytest.mark.parametrize("provider", sorted(TERMS))
def test_every_provider_covers_a_place(provider: str) -> None:
    assert EVERYWHERE[provider]


def test_every_provider_of_a_zone_has_terms() -> None:
    own_host = {"replay", "prometheus", "carbon-aware-sdk"}
    assert set(FEEDS.built_in) - own_host <= set(TERMS)

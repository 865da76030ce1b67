"""A proposed chain: one basis, in order of trust, constants only where they may stand, lines that TOML reads."""

import tomllib

import pytest

from carbonsched.errors import InputError
from carbonsched.feeds.setup.coverage import TERMS, Offer
from carbonsched.feeds.setup.places import find
from carbonsched.feeds.setup.proposal import Built, propose
from carbonsched.model.grid import Basis

PLACES = ["London", "Berlin", "dk1", "Denmark", "us-east-1", "52.5,13.4", "Sydney", "Grenada", "Paris", "MIT"]
BASES = {
    "neso": Basis.AVERAGE_DIRECT,
    "energi-data-service": Basis.AVERAGE_DIRECT,
    "open-electricity": Basis.AVERAGE_DIRECT,
    "rte": Basis.AVERAGE_DIRECT,
    "energy-charts": Basis.AVERAGE_UNSTATED,
    "watttime": Basis.MARGINAL_DIRECT,
}


def build(offer: Offer) -> Built:
    return Built(BASES.get(offer.provider, Basis(offer.keys.get("basis", "average-lifecycle"))))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("account", [True, False])
def test_a_chain_is_of_one_basis_and_its_lines_say_the_same(place: str, account: bool) -> None:
    made = propose(find(place), build, account=account)
    assert {feed.basis for feed in made.feeds} <= {made.basis}
    lines = tomllib.loads(made.toml)
    assert lines["zone"] == {"name": made.zone, "basis": made.basis}
    assert lines.get("feeds", []) == [feed.settings for feed in made.feeds]
    assert account or not any(feed.account for feed in made.feeds)
    spoken = {made.basis, *(other.basis for other in made.others)}
    for basis in spoken - {made.basis}:
        assert {feed.basis for feed in propose(find(place), build, basis=basis).feeds} == {basis}


def test_great_britain_takes_its_operator_and_no_constant_of_another_basis() -> None:
    made = propose(find("GB"), build)
    assert [feed.provider for feed in made.feeds] == ["neso", "wattnet", "electricity-maps"]
    assert made.basis is Basis.AVERAGE_DIRECT
    assert "may not stand behind them" in made.why
    assert "GB-NIR" in made.why


def test_germany_takes_lifecycle_feeds_with_the_constant_behind_them() -> None:
    made = propose(find("eu-central-1"), build)
    assert [feed.provider for feed in made.feeds] == ["wattnet", "electricity-maps", "entso-e", "static"]
    assert made.feeds[0].account is not None
    assert {other.basis for other in made.others} == {
        Basis.AVERAGE_DIRECT,
        Basis.AVERAGE_UNSTATED,
        Basis.MARGINAL_DIRECT,
    }
    free = propose(find("DE"), build, account=False)
    assert [feed.provider for feed in free.feeds] == ["energy-charts"]


def test_a_version_without_a_provider_does_not_propose_it() -> None:
    made = propose(find("DE"), lambda offer: build(offer) if offer.provider == "static" else None)
    assert [feed.provider for feed in made.feeds] == ["static"]
    assert "nothing follows the grid" in made.why


def test_what_is_marginal_is_proposed_only_when_it_is_asked_for() -> None:
    made = propose(find("Grenada"), build)
    assert [feed.provider for feed in made.feeds] == ["static"]
    assert [other.providers for other in made.others] == [("watttime",)]
    marginal = propose(find("Grenada"), build, basis=Basis.MARGINAL_DIRECT)
    assert [feed.provider for feed in marginal.feeds] == ["watttime"]


def test_where_nobody_covers_a_place_it_says_what_to_do() -> None:
    made = propose(find("Grenada"), lambda _: None)
    assert made.feeds == ()
    assert "g_per_kwh, basis and source of your own" in made.why
    assert tomllib.loads(made.toml) == {"zone": {"name": "GD", "basis": "average-lifecycle"}}


def test_a_basis_that_nobody_speaks_is_refused() -> None:
    with pytest.raises(
        InputError, match="no feed of GB speaks marginal-lifecycle; spoken here: average-direct"
    ):
        propose(find("GB"), build, basis=Basis.MARGINAL_LIFECYCLE)


def test_what_a_feed_has_not_shown_is_told() -> None:
    made = propose(find("GB"), lambda offer: Built(Basis.AVERAGE_DIRECT, "no answer was ever seen"))
    assert {feed.unverified for feed in made.feeds} == {"no answer was ever seen"}


def test_the_terms_of_every_provider_are_whole() -> None:
    for name, terms in TERMS.items():
        assert all((terms.shown, terms.cost, terms.lacks)), name

"""The sentences that say why a plan trains, waits or stops."""

from carbonsched.plan import reasons

ACCOUNT = {"left_g": 98.2, "floor_g": 60.1, "spend_g": 98.1}


def train(**changed: object) -> str:
    known = {
        "rho": 0.64, "now_g_per_kwh": 212.0, **ACCOUNT, "binding": ("budget",), "rest_g": 71.0, "rest_fits": True,
        "late_s": 0.0,
    }  # fmt: skip
    return reasons.train(**(known | changed))  # type: ignore[arg-type]


def test_training_tells_what_is_left_and_planned():
    assert train() == "rho 0.640 at 212 g/kWh: 98.2 g left, floor 60.1 g, plan 98.1 g"


def test_what_keeps_rho_down_is_told():
    assert train(binding=("budget", "guard")).endswith(
        "; guard keeps 71 g for the rest at the forecast's high"
    )
    assert train(binding=("budget", "guard"), rest_fits=False).endswith("high, more than is left: lowest rho")
    assert train(floor_g=99.0).endswith("the forecast's low is not: lowest rho")
    assert train(binding=()).endswith("; the budget does not bind")
    assert train(late_s=5400.0).endswith("the deadline is missed by 1 h 30 min even at the lowest rho")


def test_short_and_long_waits_are_told_by_the_same_rule():
    assert reasons.wait(wait_s=40.0, then_g_per_kwh=100.0, now_g_per_kwh=500.0, **ACCOUNT).startswith(
        "wait 40 s for 100"
    )
    assert reasons.wait_for_grams(40.0, 12.0, 100.0, -1.0, 0.5) == (
        "wait 40 s for 12 g at 100 g/h, 0 g are there; then rho 0.500"
    )
    assert reasons.outside_allowed_hours(7200.0, "rho 0.5").startswith(
        "wait 2 h for the allowed hours; then rho"
    )


def test_a_stop_says_what_is_needed_and_what_is_left():
    assert reasons.below_floor(14.2, 9.8) == "stop: budget below floor, needs 14.2 g, has 9.8 g"
    assert reasons.below_floor(14.2, -1.0).endswith("has 0 g")
    assert reasons.below_floor(14.2, 9.8, may_pause=True).endswith("even in the cleanest hours ahead")
    assert reasons.below_floor(14.2, 9.8, may_pause=True, deadline=True).endswith("hours before the deadline")
    assert "0.5 g at the lowest rho, at 0.1 g/h no more than 0.4 g" in reasons.rate_too_low(0.5, 0.1, 0.4)

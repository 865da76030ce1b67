"""Writes the one-line reason why a plan trains, waits or stops, for readers of `show`, the log or the ledger.

This module has all sentences of the planner, so that the same fact has the same words everywhere. `carbonsched.text`
formats the figures.
"""

from collections.abc import Collection, Mapping, Sequence

from carbonsched.text import figure, grams, long_duration, several

_ALONE = 4
"""Most settings whose own worth is listed."""


def train(
    *,
    rho: float,
    now_g_per_kwh: float,
    left_g: float,
    floor_g: float,
    spend_g: float,
    binding: Collection[str],
    rest_g: float,
    rest_fits: bool,
    late_s: float,
    now_eur_per_kwh: float | None = None,
) -> str:
    """Why the next segment trains at ρ.

    left_g: the budget without the reserve. floor_g: the spend floor. spend_g: the spend of the plan. rest_g: the floor at
    the forecast's high, and `rest_fits` whether that is left. late_s: how far even the fastest ρ misses the deadline.
    now_eur_per_kwh: the price, if the job weighs money.
    """
    price = "" if now_eur_per_kwh is None else f" and {figure(now_eur_per_kwh, 'EUR/kWh')}"
    text = f"rho {rho:.3f} at {now_g_per_kwh:.0f} g/kWh{price}: {_account(left_g, floor_g, spend_g)}"
    if "guard" in binding:
        text += f"; guard keeps {grams(rest_g)} for the rest at the forecast's high"
        if not rest_fits:
            text += ", more than is left: lowest rho"
    if floor_g > left_g:
        text += "; the floor is above what is left, the forecast's low is not: lowest rho"
    if "budget" not in binding:
        text += "; the budget does not bind"
    if late_s > 1e-6:
        text += f"; the deadline is missed by {long_duration(late_s)} even at the lowest rho"
    return text


def train_setting(
    *, settings: str, now_g_per_kwh: float, left_g: float, floor_g: float, spend_g: float, guarded: bool
) -> str:
    """Why the next segment trains in its setting. settings: the result of `settings`."""
    text = f"{settings}; at {now_g_per_kwh:.0f} g/kWh: {_account(left_g, floor_g, spend_g)}"
    return f"{text}; the guard grants no dearer setting now" if guarded else text


def settings(steps: Mapping[str, int], left_out: int, gain: float, alone: Sequence[tuple[str, float]]) -> str:
    """The settings of a plan, and the worth of each setting alone.

    steps: setting → steps. left_out: steps left out at the end. gain, alone: shares of the worth of all steps of full fine-tuning.
    """
    told = ", ".join(f"{name} for {several(n, 'step')}" for name, n in steps.items())
    early = f", ends {several(left_out, 'step')} early" if left_out else ""
    text = f"auto: {told}{early}, worth {gain:.0%} of all full steps"
    others = [f"{name} {worth:.0%}" for name, worth in alone if list(steps) != [name]][:_ALONE]
    return f"{text}; alone {', '.join(others)}" if others else text


def open_settings(steps: Mapping[str, int], gain: float, alone: Sequence[tuple[str, float]]) -> str:
    """The same for a job with an open number of steps (`steps` below gives it): each setting alone against the plan."""
    whole = max(sum(steps.values()), 1)
    told = ", ".join(
        name if len(steps) == 1 else f"{name} for {n / whole:.0%} of the steps" for name, n in steps.items()
    )
    others = [f"{name} {worth / gain:.0%}" for name, worth in alone if list(steps) != [name] and gain > 0]
    return (
        f"auto: {told}; for the same grams and time {', '.join(others[:_ALONE])} of that"
        if others
        else f"auto: {told}"
    )


def no_more_steps(left_g: float) -> str:
    return f"stop: {grams(max(left_g, 0.0))} left pay for no further segment in any setting"


def wait(
    *,
    wait_s: float,
    then_g_per_kwh: float,
    now_g_per_kwh: float,
    left_g: float,
    floor_g: float,
    spend_g: float,
    then_eur_per_kwh: float | None = None,
    now_eur_per_kwh: float | None = None,
) -> str:
    """Why the job waits for a cleaner hour, or a cheaper one if it weighs money."""
    price = ""
    if then_eur_per_kwh is not None and now_eur_per_kwh is not None:
        price = f" and {figure(then_eur_per_kwh, 'EUR/kWh')}, now {figure(now_eur_per_kwh)}"
    return (
        f"wait {long_duration(wait_s)} for {then_g_per_kwh:.0f} g/kWh, now {now_g_per_kwh:.0f}{price}; "
        f"{_account(left_g, floor_g, spend_g)}"
    )


def _account(left_g: float, floor_g: float, spend_g: float) -> str:
    return f"{grams(left_g)} left, floor {grams(floor_g)}, plan {grams(spend_g)}"


def below_floor(floor_g: float, left_g: float, *, may_pause: bool = False, deadline: bool = False) -> str:
    """Why a job stops if its budget cannot pay for the lowest ρ. deadline: whether it has one."""
    text = f"stop: budget below floor, needs {grams(floor_g)}, has {grams(max(left_g, 0.0))}"
    if not may_pause:
        return text
    return text + (
        ", even in the cleanest hours before the deadline"
        if deadline
        else ", even in the cleanest hours ahead"
    )


def rho_max_below_floor(rho_max: float, rho_floor: float) -> str:
    return f"stop: rho_max {rho_max:.3f} is below the model's floor {rho_floor:.3f}; raise rho_max"


def outside_allowed_hours(opens_s: float, reason: str) -> str:
    return f"wait {long_duration(opens_s)} for the allowed hours; then {reason}"


def without_forecast(reason: str) -> str:
    return f"{reason}; no usable forecast: the price of the plans before stands for it"


def windowed(reason: str, reach_s: float, kept: int, segments: int) -> str:
    """For a plan of the first `kept` of all segments, as far as the forecast reaches."""
    return f"{reason}; looks {long_duration(reach_s)} ahead, {kept} of {segments} segments"


def steps(*, cooling: bool, begin: int, end: int, keeps_g: float) -> str:
    """The number of steps of a job of open end, and the phase of its learning rate."""
    keeps = f"{grams(keeps_g)} kept for it and the end"
    if cooling:
        return f"cooldown from step {begin} to step {end}, {keeps}"
    return f"stable, then a cooldown from about step {begin} to about step {end} (estimated), {keeps}"


def min_carbon(rho: float, budget_g: float, reason: str, *, wanted: float | None = None) -> str:
    """For the fewest grams at a mean ρ. wanted: the mean ρ that is out of reach; None: it is reached."""
    text = f"min-carbon: mean rho {rho:.3f} for {grams(budget_g)}; {reason}"
    return text if wanted is None else f"{text}; the wanted {wanted:.3f} is out of reach before the deadline"


def min_carbon_above_cap(rho: float, budget_g: float, reason: str) -> str:
    return f"min-carbon: mean rho {rho:.3f} would take {grams(budget_g)}, the budget is the cap; {reason}"


def rate_too_low(segment_g: float, g_per_h: float, most_g: float) -> str:
    """Why a job stops if its budget never saves up the grams of one segment."""
    return (
        f"stop: a segment needs {grams(segment_g)} at the lowest rho, at {figure(g_per_h, 'g/h')} no more than "
        f"{grams(most_g)} are saved up; shorten train.segment or raise the rate"
    )


def saved_up(rho: float, level_g: float) -> str:
    return f"rho {rho:.3f}: {grams(level_g)} are saved up"


def accruing(reason: str, level_g: float, g_per_h: float) -> str:
    return f"{reason}; {grams(level_g)} are there, the rest accrues at {figure(g_per_h, 'g/h')}"


def wait_for_grams(wait_s: float, needs_g: float, g_per_h: float, level_g: float, rho: float) -> str:
    """Why a job with a growing budget waits: until the grams of the next segment have accrued."""
    return (
        f"wait {long_duration(wait_s)} for {grams(needs_g)} at {figure(g_per_h, 'g/h')}, "
        f"{grams(max(level_g, 0.0))} are there; then rho {rho:.3f}"
    )

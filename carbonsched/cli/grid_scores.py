"""`carbonsched grid`: show the errors of each provider's forecasts for the times that have passed."""

from typing import TYPE_CHECKING

from carbonsched.cli import output as o

if TYPE_CHECKING:
    from carbonsched.model.grid import ForecastScore, GridView, HorizonScore

COLUMNS = ("AHEAD", "TIMES", "ERROR", "BIAS", "YESTERDAY'S ERROR", "ITS BIAS")


def show(view: "GridView") -> None:
    """One table per provider: mean absolute error and bias by horizon, beside persistence for the same times."""
    out = o.console()
    for score in view.scores:
        out.print()
        if score.reason is not None:
            out.print(
                f"FORECASTS OF {score.provider}, {score.zone}: {score.reason}", markup=False, soft_wrap=True
            )
            continue
        out.print(
            f"FORECASTS OF {score.provider}, {score.zone}: {score.forecasts} in {score.kept_h / 24:.0f} d, held against what "
            "it then told; g/kWh, % of the mean",
            markup=False,
            soft_wrap=True,
        )
        out.print(_table(score))


def _table(score: "ForecastScore") -> object:
    rows = o.table(*COLUMNS, right=COLUMNS[1:])
    for one in score.horizons:
        if one.n:
            rows.add_row(f"{one.from_h:g}-{one.to_h:g} h", str(one.n), *_figures(one))
    return rows


def _figures(one: "HorizonScore") -> tuple[str, ...]:
    return (
        _both(one.mae_g_per_kwh, one.mae_percent, ""),
        _both(one.bias_g_per_kwh, one.bias_percent, "+"),
        _both(one.persistence_mae_g_per_kwh, one.persistence_mae_percent, ""),
        _both(one.persistence_bias_g_per_kwh, one.persistence_bias_percent, "+"),
    )


def _both(g: float | None, percent: float | None, sign: str) -> str:
    """Both values; a bias has a sign."""
    if g is None:
        return "-"
    return f"{g:{sign}.1f}" + ("" if percent is None else f" ({percent:{sign}.1f}%)")

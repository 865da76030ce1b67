"""Measures the figures that the documentation states. Not part of the installed package.

forecasts        what blending two providers' forecasts brings, by horizon
planner          how well the planner spends a budget on real traces
ledger_year      size, verifying and reports of a ledger that has lasted a year
daemon_at_rest   start-up time, memory and CPU time of a daemon without jobs
gpu              seconds, joules and memory of a step against its FLOPs, on a real board
gpu_check        shows on a real board what the tests show on stand-ins
loss_curve       how well the loss of recorded runs is foretold
open_end         how well simulated jobs whose steps the daemon decides use their budgets
open_end_jobs    the same of ten real ones on a replayed grid
settings_on_grids  what `auto` plans against what people do by hand, equal grams on recorded grids
daemon_box       a daemon of its own in a folder, for gpu_check and open_end_jobs
api_fuzz         whatever Schemathesis asks a real daemon, by hand: no 5xx, no hang
example_scripts  whether the examples of transformers and TRL run at the ρ that the callback plans
"""

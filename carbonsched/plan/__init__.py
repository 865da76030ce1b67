"""The planner, pure: no I/O, no clock; the daemon and the simulator run the very same code.

problem    what is asked and answered
energy     joules and seconds as a function of ρ, fitted online
blend      past and provider blended into one expectation, weights and errors learned
forecast   readings and forecasts made into slots with quantiles
track      the arrays the solver works on: time, grams and gain of the segments ahead
dynamic    for one price, the best wait-or-train plan over (segment, time)
planner    the price that spends the budget, and the directive for the next segment
guard      what keeps a job inside its budget whatever the forecast does
budget     a wanted quality as a budget; one pool for several jobs
explain    a plan told before anything is spent
policies   what the simulator compares
simulate   all of this closed over a trace
evaluate   the figures of docs/planner.md
"""

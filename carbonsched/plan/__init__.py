"""The planner, pure: no I/O, no clock; the daemon and the simulator run the very same code.

problem    what is asked and answered
aim        what a job wants of its grams: most gain, fewest grams, or what a rate allows
energy     joules and seconds as a function of ρ, fitted online
blend      past and provider blended into one expectation, weights and errors learned
forecast   readings and forecasts made into slots with quantiles
said       what a provider has said, each forecast known from its time on
issues     a provider's forecasts as they were issued, remembered
hours      planning in allowed hours alone
discount   what a later segment is worth against the next
track      the arrays the solver works on: time, grams and gain of the segments ahead
dynamic    for one price, the best wait-or-train plan over (segment, time)
planner    the price that spends the budget, and the directive for the next segment
blind      the plan where there is no usable forecast
guard      what keeps a job inside its budget whatever the forecast does
budget     a wanted quality as a budget; one pool for several jobs
explain    a plan told before anything is spent
policies   what the simulator compares
scenario   what a simulation is asked
simulate   all of this closed over a trace
sweep      many simulations in one call
evaluate   the figures of docs/planner.md
proof      its claims as cases to be run one by one
"""

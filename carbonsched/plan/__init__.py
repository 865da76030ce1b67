"""Plans the segments of a job: from grams, hours and a forecast to ρ. Pure: no files, no clock.

The daemon and the simulator run the same code. docs/planner.md describes the method and its results.

problem           the planner's input and output
planner           decides what the next segment does: train at ρ, wait or stop
price_search      the price at which the plan spends the budget
setting_search    the same over a few real settings: full, tokens, tensors, none
setting_arrays    the arrays of it
setting_beam      the best of many partial plans, kept by both prices
two_prices        a price for grams and one for time
reasons           the sentences of a plan's reason
objective         the objectives of a job: most gain, fewest grams, or what a rate allows
dynamic_program   for one price, the best wait-or-train plan over (segment, time)
segment_arrays    the arrays that the solver works on: time, grams and gain of the segments ahead
intensity_curve   intensity over time and its integral
clocks            the graphics clock of a segment, by metered joules and seconds
energy_fit        joules and seconds as a function of rho, fitted online
gain_decay        the gain of a later segment relative to the next
loss_curve        the expected held-out loss after more steps, from the job's own losses
working_time      plans within allowed hours
step_dial         number of steps of a job of open end, and the start of its cooldown
guard             keeps a job inside its budget for any forecast
allocation        a required quality as a budget; one pool divided among several jobs
explain           explains a plan before anything is spent
forecasting/      turns readings and forecasts into time slots
simulation/       policies run over a recorded trace
"""

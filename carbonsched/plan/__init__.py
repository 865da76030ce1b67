"""Plans the segments of a job: from grams, hours and a forecast to ρ. Pure: no files, no clock.

The daemon and the simulator run the very same code. docs/planner.md tells the method and what it achieves.

problem           what is asked and answered
planner           says what the next segment does: train at ρ, wait or stop
price_search      the price at which the plan spends the budget
setting_search    the same over a few real settings: full, tokens, tensors, none
setting_arrays    the arrays of it
setting_beam      the best plan out of many begun ones, kept by both prices
two_prices        a price for grams and one for time
reasons           the sentences that say why
objective         the objectives of a job: most gain, fewest grams, or what a rate allows
dynamic_program   for one price, the best wait-or-train plan over (segment, time)
segment_arrays    the arrays that the solver works on: time, grams and gain of the segments ahead
intensity_curve   intensity over time and its integral
clocks            the graphics clock of a segment, by joules and seconds as metered
energy_fit        joules and seconds as a function of rho, fitted online
gain_decay        what a later segment is worth against the next
loss_curve        the held-out loss to be expected after more steps, from the job's own losses
working_time      plans in allowed hours alone
step_dial         how many steps a job of open end takes, and when it cools down
guard             keeps a job inside its budget whatever the forecast does
allocation        a wanted quality as a budget; one pool divided among several jobs
explain           explains a plan before anything is spent
forecasting/      readings and forecasts made into time slots
simulation/       policies run over a recorded trace
"""

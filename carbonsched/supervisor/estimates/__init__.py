"""Estimates what a job will still take: steps, seconds, joules and grams. A daemon imports it with its first job.

inputs           all that one decision needs, gathered once
remaining_work   the segments that a job still has to run
job_cost         what a job takes: as metered, or from priors
evaluation_cost  what evaluating on held-out rows will take
throughput       how fast and at what power this box trains
loss_outlook     the held-out loss that a job should end at
grid_outlook     what the grid will be, as far as it is known
"""

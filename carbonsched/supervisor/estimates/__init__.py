"""Estimates what a job will still take: steps, seconds, joules and grams.

remaining_work   the segments that a job still has to run
throughput       how fast and at what power this box trains
evaluation_cost  what evaluating on held-out rows will take
job_cost         what a job will take: as metered, or from priors
"""

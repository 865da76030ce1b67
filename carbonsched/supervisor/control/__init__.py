"""Decides what each job is told, and tells it. A daemon imports it with its first job.

loop      at every tick of a live job: what is due, gather, decide, apply
decide    pure: from the inputs gathered to a decision
leases    pure: how long a directive holds, and how it changes while it runs
clock_dial  the clock of a job's board: chooses it, has it locked, notes it
decision  what was decided
director  applies it: control.json, journal, signals
"""

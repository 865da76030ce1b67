"""Runs a policy over a recorded trace, with the planner and the guard that the daemon uses.

request   what a simulation is asked
policies  what the simulator compares
run       one simulation under way: what is known, what is spent
result    what it answers
open_end  one run of a job whose number of steps is open
simulate  one run over a trace
sweep     many runs in one call
"""

"""Runs a policy over a recorded trace, with the planner and the guard that the daemon uses.

request   the input of a simulation
policies  the policies that the simulator compares
run       one running simulation: what is known, what is spent
result    the output of a simulation
open_end  one run of a job whose number of steps is open
simulate  one run over a trace
sweep     many runs in one call
"""

"""Runs a policy over a recorded trace, with the planner and the guard that the daemon uses.

request   what a simulation is asked
policies  what the simulator compares
simulate  one run over a trace
sweep     many runs in one call
"""

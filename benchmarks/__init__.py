"""Measures the figures that the documentation states. Not part of the installed package.

planner          how well the planner spends a budget on real traces
daemon_at_rest   start-up time, memory and CPU time of a daemon without jobs
example_scripts  whether the examples of transformers and TRL run at the ρ that the callback plans
"""

"""Measures how well the planner spends a budget on real traces: the figures of docs/planner.md.

cases     the claims as cases that run one by one
"""

"""The configuration of a box whose board is a replayed curve: what `carbonsched run` is tried on, with and without a daemon."""

CONFIG = """
pue = 1.5
pue_source = "test"
[[feeds]]
provider = "static"
g_per_kwh = 400
basis = "average-lifecycle"
source = "test"
[power]
gpu = "replay"
host = "none"
replay_file = "watts.csv"
tick_s = 0.05
"""

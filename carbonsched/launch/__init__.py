"""Starts, stops and finds the processes of jobs: the only part that touches other processes.

base            what every launcher offers
local           jobs as processes of this machine
process_group   every process of a job, found and ended
shim            the small process that holds one job, outlives the daemon and writes how it ended
"""

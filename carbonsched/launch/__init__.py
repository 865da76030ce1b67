"""Starts, stops and finds the processes of jobs: the only part that touches other processes.

base            what every launcher offers
local           jobs as processes of this machine
systemd         jobs as units of systemd, each as the user who submitted it
job_launcher    what runs in such a unit: becomes the submitter, and holds the job
process_group   every process of a job, found and ended
cpu_time        the processor's time that a job's processes took, and the box
command         a command that carbonsched run started: known again, and ended
liveness_lock   a lock that such a command holds while it lives, for a daemon that may not see it
leftover_processes  what such a command left running, as its user sees it
shim            the small process that holds one job, outlives the daemon and writes how it ended
handover        checks, opens and hands over what a job reads, with its submitter's rights
inputs          which files that is
rights          opens one file with another user's rights
job_folder      makes a job's folder its submitter's to read
"""

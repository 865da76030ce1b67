"""The trainer's side of a job directory. Imports no torch but in random_state.

inputs        reads what the daemon has opened for the job
job_dir       reads spec.json and control.json, writes events.jsonl
directives    asks for a directive at each segment and obeys it
budget_schedule  the learning rate of a job that ends where its budget does
schedule_rules  what of the schedule's keys does nothing, or never ends
segment       records one segment: steps, losses, seconds and FLOPs
checkpoint    saves and restores what a run needs to go on
stop_signal   notes SIGTERM and SIGINT, and ends at once what has not begun
step_parts    seconds of the parts of a step
random_state  keeps random generators where they stood
"""

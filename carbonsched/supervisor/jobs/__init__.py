"""What the daemon knows of one job that is not over.

job_run         the job: its state and budget, its orders, and the three parts below
account         energy and grams that were charged to it
process_state   its process: since when, on which devices, to what end it was asked to stop
progress        how far it has come: a fold over its events
step_pace       how fast the steps of the segment under way go
actors          who acts in the journal, beside people
event_limit     how many of a process's events become rows
event_follower  reads events.jsonl as the trainer appends to it
"""

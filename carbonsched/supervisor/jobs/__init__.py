"""What the daemon knows of one job that is not over.

job_run         the job's state: its account, its process and its progress
event_follower  reads events.jsonl as the trainer appends to it
"""

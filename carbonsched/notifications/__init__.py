"""Tells people and programs what became of jobs: by a command, a webhook, or mail. Nothing here is waited for.

settings  `[[notify]]` of the config
targets   one way each to deliver it
sender    a queue and a thread for each target, with a bounded number of tries
"""

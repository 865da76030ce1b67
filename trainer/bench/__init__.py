"""Measurements of the trainer: `python -m trainer bench …`. Nothing else imports this package."""

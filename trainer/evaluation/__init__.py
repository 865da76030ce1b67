"""Evaluates a model on held-out rows.

held_out        the loss on held-out rows
generate        writes text for prompts
metrics         scores written text
early_stopping  ends a run that no longer improves
model_card      the card that is saved with the model
"""

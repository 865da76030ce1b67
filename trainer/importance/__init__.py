"""Measures the importance of every tensor: the loss that its next update promises to take away.

measure            one importance pass over a few batches
estimators         which batches give the gradient and which the update
optimizer_updates  the update an optimizer would make next
objectives         what the selector maximises
"""

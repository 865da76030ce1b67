"""Measures the importance of every tensor: the loss that its next update promises to take away.

measure            the importance of every tensor over a few batches
gradient_pass      takes each gradient of a backward pass as it comes
estimators         which batches give the gradient and which the update
optimizer_updates  the update an optimizer would make next
objectives         what the selector maximises
"""

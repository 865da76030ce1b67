"""Chooses the tensors to train at a FLOPs ratio. Needs NumPy alone.

cost_model       FLOPs of any selection, from a profile
backward_states  which backward passes a selection needs
knapsack         the exact 0/1 knapsack over weight-gradient FLOPs
frontier         the best importance at every ratio, for additive importance
submodular       the same where importances of one block add up under a root
cached_frontier  the same where cached activations save the frozen prefix
"""

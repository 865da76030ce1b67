"""Runs one training on several processes.

ranks     what the processes agree on: one decision for all of them
wrapping  what DDP, FSDP2 and torch.compile need at each new selection
"""

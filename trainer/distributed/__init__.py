"""Runs one training on several processes.

wrapping  ranks, and what DDP, FSDP2 and torch.compile need at each new selection
"""

"""Runs one training on several processes.

launching  starts the processes through torchrun, stops and ends them together
ranks      what the processes agree on: one decision for all of them
wrapping   what DDP, FSDP2 and torch.compile need at each new selection
"""

"""The fine-tuning methods.

method    which tensors a method trains at a ratio
adapters  LoRA and prefix tuning
dropbp    drops backward passes of residual branches
prepare   sets a model up for its method
"""

"""The fine-tuning methods.

registry            every method, one row each, built in or from a plugin
method              which tensors a method may train, and what it gains at each ratio; selects by importance
constant            methods that train the same tensors whatever is asked
adapters            LoRA and prefix tuning
auto                changes between all of the model and drawn tensors, as the daemon says
tokens              trains on the last tokens of each row
tensors_and_tokens  chooses among tensors as well, by what a step of each pair is worth
dropbp              drops backward passes of residual branches
prepare             sets a model up for its method
"""

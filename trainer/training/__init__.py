"""The loop around `transformers.Trainer`.

callback          GreenTrainerCallback: the Trainer's hooks
segment_driver    begins and ends segments
options           what the Trainer is started with
activation_cache  caches the activations of a frozen prefix
activation_store  keeps those activations on disk or in memory
optimizer_state   keeps, drops or offloads the optimizer state of frozen tensors
"""

"""Counts the FLOPs of a model with torch's own counter.

meta_model    builds a model on meta tensors, without weights
batch_form    builds batches in the form of a Trainer's own
profiler      traces one backward pass and profiles every tensor
attention_flops  fused attention by formulas of our own
flop_counter  counts a real step
prefix_cache  hands peft's prefixes to transformers under the name that it knows
"""

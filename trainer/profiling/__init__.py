"""Counts the FLOPs of a model with torch's own counter.

meta_model    builds a model on meta tensors, without weights
batch_form    builds batches in the form of a Trainer's own
profiler      traces one backward pass and profiles every tensor
attention_flops  fused attention by formulas of our own
recurrent_flops  LSTM layers as the one operator that they are on a CPU
flop_counter  counts a real step
labelled_head  runs the output embeddings on labelled tokens alone
stock         what a stock Trainer computes on the same rows
row_ends      pushes the rows of a batch together at their ends
prompt_cache  keys and values of the first part of rows
prompt_split  runs rows in two parts, the first without gradients
chunked_loss  takes the loss a few tokens at a time
uncounted     names work whose FLOPs nothing here counts
length_fit    foretells FLOPs at lengths that were not traced
shaped_costs  prices a selection at the shapes that really come
prefix_cache  hands peft's prefixes to transformers under the name that it knows
"""

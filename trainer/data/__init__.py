"""Loads models and data, and turns rows into batches.

reading           reads files, folders and hub data sets
field_layouts     recognises the fields of common data sets
sampling          the order of the rows
upcoming_batches  looks ahead at the batches to come
models            loads models and tokenizers
"""

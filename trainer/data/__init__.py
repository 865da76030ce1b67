"""Loads models and data, and turns rows into batches.

reading           reads the rows of a job: a file, a folder or a hub data set
files             reads one file: JSON lines, JSON, CSV, Parquet, plain text
csv_rows          reads the rows of a CSV file
splits            finds the files of a split in a folder, shards included
hub               downloads a data set of the hub
encoding          turns rows into tokens, prompts, batches and batch shapes
field_layouts     recognises the fields of common data sets
conversations     reads the turns of a conversation
chat_template     turns conversations into tokens, and finds the assistant's
sampling          the order of the rows
streams           stands in for the batches of a stream
upcoming_batches  looks ahead at the batches to come
models            loads models and tokenizers
"""

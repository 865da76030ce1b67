"""Reads the logs of other tools into runs that the ledger can book.

codecarbon  emissions.csv
zeus        the log of a ZeusMonitor
log_table   a CSV file as rows of named fields, and the line and field of what is wrong
"""

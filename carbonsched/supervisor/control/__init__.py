"""Decides what each live job does next, and tells it.

leases    the directive and its lease
director  writes control.json and the journal, and sends signals
"""

"""Proposes the feeds of a place, offline: what `carbonsched grid --setup` and `--zones` answer from.

places    the grid zone of a place, offline
coverage  which provider covers a zone, and what it costs and lacks
proposal  the chain of feeds for a place
"""

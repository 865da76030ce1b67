"""carbonsched: LLM fine-tuning that obeys a carbon budget. `carbonsched.daemon` builds the daemon from its parts (docs/architecture.md)."""

__version__ = "0.1.0"

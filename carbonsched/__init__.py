"""carbonsched: LLM fine-tuning that obeys a carbon budget. `carbonsched.daemon` is where the parts meet."""

__version__ = "0.1.0"

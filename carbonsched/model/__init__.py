"""The documents that daemon, trainer, CLI and API share; the only part of carbonsched that the trainer imports.

base      strictness, UTC times, one-line errors
job       JOB.toml, spec.json, the states of a job
protocol  control.json, events.jsonl, run.json, exit.json, FRONTIER.json
grid      intensity readings and forecasts with provenance
energy    energy deltas and ledger intervals
profile   what the trainer's own commands print
view      what the API and `--json` answer
"""

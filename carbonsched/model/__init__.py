"""The documents that daemon, trainer, CLI and API share; the only part of carbonsched that the trainer imports.

base      strictness, UTC times, one-line errors
attribute_docstrings  what the JSON Schemas say of a key, read from the source
error_words  what is wrong with a value, in our words: the table of pydantic's errors
limits    the range of a key, as its model states it
strict_types  refuses what a file with types says in another one
files     documents as files of a job directory, old or new and always whole
job       JOB.toml and spec.json as documents, and the rules within their parts
job_conflicts  settings of a job that do not go with its method, or with an open end
notification  what is told of a job once something happened to it
queue_settings  a job's place among those that wait, and how often it is tried
labels    a job's own words for whom it runs, which reports group by
imported  what other tools measured, on its way into the ledger
command   what passes between carbonsched run and whoever meters its command
job_file  reads JOB.toml or spec.json
methods/   what each training method can and cannot, and its own keys of [train]
job_state  the states of a job and the moves between them
allowed_hours  hours of the day in which a job may train
setting   how a segment trains: method and τ, and what each setting offers
protocol  control.json, events.jsonl, run.json, exit.json, FRONTIER.json
clock_changes  when a board was locked at which clock
grid      intensity readings and forecasts with provenance
grid_setup  what grid --setup, --zones and --probe print
checks    what doctor and config check print
energy    energy deltas and ledger intervals
model_card  a model card, as the hub reads it
accounting  what the owner of a box states for reports
profile   what the trainer's own commands print
segment_figures  the figures of a finished segment
audit     what audit verify, export, diff and anchor answer
pools     budgets that jobs share, as they are shown
interning  keeps one copy of equal documents: of a sweep's jobs nearly every part of the spec is the same
upkeep    draining the box, and taking finished jobs away
views     what the API and `--json` answer
"""

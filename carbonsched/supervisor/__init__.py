"""The supervision of jobs: adopt, meter, direct, record.

supervisor  the tick, and what the API may ask of it
run         what is known of one job: a fold over its events
events      following events.jsonl
metering    whose energy it was, as ledger rows
steering    the planner's problem, the directive, the lease
views       what `ps` and `show` answer
"""

from carbonsched.supervisor.supervisor import Supervisor

__all__ = ["Supervisor"]

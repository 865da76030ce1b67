"""The supervision of jobs: adopt, meter, direct, record.

supervisor  the tick, and the jobs that are not over
service     what the API asks between two ticks
run         what is known of one job: a fold over its events
events      following events.jsonl
lives       the processes a job has had, and a run rebuilt after a restart
metering    whose energy it was, as ledger rows
allowance   what each job may spend, and where that comes from
accrual     a budget that grows with time
pools       budgets that several jobs share
ahead       the segments a job still has to run, and how fast this box is
evaluation  what looking at held-out rows will take
outlook     what a job will take: as metered, or as foreseen
steering    the planner's problem, the directive, the lease
director    each live job told: its directive, a fresh lease, a lower ρ, its end
foresight   `submit --explain`
views       what `ps` and `show` answer
"""

from carbonsched.supervisor.supervisor import Supervisor

__all__ = ["Supervisor"]

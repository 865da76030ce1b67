"""Supervises jobs: adopts, meters, directs and records them.

The tick and the API:

supervisor      the tick, and moves between job states
service         answers the API between two ticks
measured_lock   the one lock, and how long it is held
tick_interval   the real time between ticks
metric_counters  counts the daemon's own energy, grams and durations
metrics         renders `/metrics` for Prometheus
access          who may see and change a job
quotas          how many jobs a user may have, and the grams they may emit

A job from submission to its end:

job_reference   makes job ids, and resolves an id, a name or first letters
explain         `submit --explain`
queue_outlook   when queued jobs should start
drain           keeps the box from starting jobs
starter         starts queued jobs
pending_starts  starts that are under way, each in a thread
placement       which devices a job gets, and whether it trains there
bounded_call    calls into drivers that may hang, with a timeout
lifecycle       follows a job's process to its end
responsiveness  jobs that disobey their directive or fall silent
fault_isolation  keeps a fault of one job from the others
outcome         the state a job goes to after its process has ended
event_recording  writes a job's events into the ledger
job_notifier    notifies people of jobs
job_list        the JSON of `ps`, of which only changed rows are made again
job_views       what `ps` and `show` say of a job
removal         removes the folders of jobs that are over
commands        meters what `carbonsched run` starts
imports         books what other tools measured

After a restart:

recovery        journals each trainer process, and rebuilds a job
adoption        adopts the jobs that an earlier daemon left
ledger_continuity  refuses a ledger that knows less than the job folders

Energy:

metering        turns the meter's deltas into ledger rows
host_shares     shares a host's energy by CPU time
cpu_watch       the CPU time of each job from tick to tick
supply_shares   the part of each piece of energy that the site's own supply gave
late_energy     charges energy that a meter reports late

The grid, prices and supply:

grid_watch      remembers and scores what providers forecast
forecast_file   keeps that over a restart
value_window    caches the feeds' values over one tick
feed_states     which changes of a feed's state to report
price_watch     the price of a kWh, now and ahead
pue_watch       the PUE that holds: by its feed, the hour or the year
supply_watch    the site's own supply now, and its feeds that fail

The ledger, beside the tick:

pending_rows    queues what the ledger refuses until it takes it
revisions       finds the settlements to write; pure
settling        writes what became known later of the past into the journal
heartbeat       records the heads of the ledger's chains once an hour
ledger_maintenance  sums up hours and rolls up old rows
effects_cache   caches what finished jobs saved, for reports of a period

Folders:

jobs/           what is known of one job
estimates/      what a job will still take
budgets/        what a job may spend
control/        what a job is directed to do
"""

from carbonsched.supervisor.supervisor import Supervisor

__all__ = ["Supervisor"]

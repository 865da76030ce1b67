"""Supervises jobs: adopts, meters, directs and records them.

supervisor   the tick, and moving jobs between states
adoption     goes on with the jobs that an earlier daemon left
lifecycle    follows a job's process to its end, and moves the job after it
starter      starts the jobs that are queued
drain        whether the box starts jobs at all
removal      takes away the folders of jobs that are over
pending_starts  starts that are under way, each in a thread
service      what the API asks between two ticks
imports      books what other tools measured
commands     meters what carbonsched run starts
explain      `submit --explain`
fault_isolation  keeps what is wrong with one job from the others
tick_interval  how far apart ticks come
outcome      where a job goes whose process has ended
grid_watch   what providers forecast, remembered and scored while nothing runs
forecast_file  keeps that over a restart
feed_states  which feeds' states are to be told
price_watch  what a kWh costs, now and ahead
pue_watch    which PUE holds: by its feed, the hour, or the year
metering     whose energy it was, as ledger rows
host_shares  whose the host's was, by CPU time
cpu_watch    the CPU time of each job from tick to tick
late_energy  charges what a meter tells late to whose time it was
settling     writes what became known later of the past into the journal
revisions    which settlements there are to write, pure
job_notifier  says what became of a job to who wants to be notified
measured_lock  the one lock, and how long it is held
metric_counters  what the daemon counts of itself, in memory
metrics      tells it to Prometheus
effects_cache  what finished jobs saved, for reports of a period
ledger_maintenance  rolls the ledger up in the background
heartbeat    notes the heads of the ledger's chains once an hour
pending_rows  keeps what the ledger refuses until it takes it
queue_outlook  when queued jobs should start
responsiveness  jobs that go on against what they were told, or fall silent
bounded_call  asks what may hang, and waits a moment for it
placement    which devices a job gets, and whether it trains there
event_recording  writes what a job's events say into the ledger
ledger_continuity  refuses a ledger that knows less than the job folders
supply_watch  the site's own supply now, and its feeds that fail
value_window  what the feeds say over the stretch of one tick, asked once for all devices
supply_shares  what part of each piece of energy the site's own supply gave
recovery     journals each trainer process, and rebuilds a job after a daemon restart
job_reference  which job an id, a name or its first letters mean
job_list     what `ps` answers, as JSON of which only what changed is made anew
job_views    what a job shows of itself in `ps` and `show`
quotas       what one user may have at a time, and emit in a day and a month
access       who may see and change a job
jobs/        what is known of one job
estimates/   what a job will still take
budgets/     what a job may spend
control/     what a job is told
"""

from carbonsched.supervisor.supervisor import Supervisor

__all__ = ["Supervisor"]

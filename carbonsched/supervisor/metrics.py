"""Renders the state of the box, its jobs, its feeds and the daemon for Prometheus: exactly the metrics of docs/metrics.md.

Unknown values are left out, never 0. Of a job that the caller may not read, only what `ps` shows everybody is exported, without ρ.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from carbonsched import __version__
from carbonsched.model.job_state import JobState
from carbonsched.supervisor.jobs.job_run import JobRun
from carbonsched.supervisor.metric_counters import Histogram
from carbonsched.supervisor.supervisor import Supervisor
from carbonsched.units import MJ_PER_J


def render(supervisor: Supervisor, readable: Callable[[JobRun], bool]) -> str:
    """The current metrics in the text exposition format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Box(supervisor, readable))
    return generate_latest(registry).decode()


class _Box(Collector):
    def __init__(self, supervisor: Supervisor, readable: Callable[[JobRun], bool]) -> None:
        self.supervisor, self.readable = supervisor, readable

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        supervisor = self.supervisor
        grid = supervisor.watch.view(0.0)
        with supervisor.lock:  # nothing here waits
            found = [*self._energy(), *self._jobs(), *self._pools(), *self._daemon()]
        yield from found
        now = grid.now.g_per_kwh
        yield _gauge(
            "carbonsched_grid_intensity_grams_per_kwh",
            "Grid intensity that counts now, by the provider that said so.",
            ("provider", "zone", "basis"),
            [((grid.now.provider or "", grid.now.zone or "", str(grid.now.basis or "")), now)],
        )
        yield _gauge(
            "carbonsched_feed_up",
            "1: the feed's last poll succeeded, or it is not wanted now; 0: it is stale, failing or untried.",
            ("feed", "state"),
            [((f.name, f.state), float(f.state in ("ok", "standby"))) for f in grid.feeds],
        )
        yield _gauge(
            "carbonsched_feed_last_success_timestamp_seconds",
            "When the feed gave a usable answer last.",
            ("feed",),
            [((f.name,), f.last_success.timestamp() if f.last_success else None) for f in grid.feeds],
        )

    def _energy(self) -> Iterator[Metric]:
        counters, labels = self.supervisor.counters, ("account", "device")
        for name, said, values in (
            (
                "energy_joules",
                "Joules metered since the daemon began, as far as they are known.",
                counters.energy_j,
            ),
            (
                "emissions_grams",
                "Grams CO2e since the daemon began, by location, PUE included.",
                counters.grams,
            ),
            ("unknown_seconds", "Seconds of which energy or intensity is not known.", counters.unknown_s),
        ):
            family = CounterMetricFamily(f"carbonsched_{name}", said, labels=labels)
            for key, value in sorted(values.items()):
                family.add_metric(key, value)
            yield family
        watts = sorted(self.supervisor.metering.watts.items())
        yield _gauge(
            "carbonsched_power_watts", "Power of a device.", ("device",), [((d,), w) for d, w in watts]
        )

    def _jobs(self) -> Iterator[Metric]:
        runs = list(self.supervisor.runs.values())
        states = [state for state in JobState if not state.ended]
        of_state = [((state.value,), float(sum(run.state is state for run in runs))) for state in states]
        yield _gauge("carbonsched_jobs", "Jobs that are not over.", ("state",), of_state)
        odd = [
            ((kind,), float(sum(run.unresponsive[0] == kind for run in runs))) for kind in ("silent", "deaf")
        ]
        said = "Jobs that say nothing for long (silent), or go on against what they were told (deaf)."
        yield _gauge("carbonsched_jobs_unresponsive", said, ("kind",), odd)
        labels = ("job_id", "owner")
        keys = {run.id: (run.id, run.job.owner.user) for run in runs}
        counters: tuple[tuple[str, str, Callable[[JobRun], float]], ...] = (
            ("job_energy_joules", "Joules charged to the job.", lambda run: run.account.spent_mj / MJ_PER_J),
            ("job_emissions_grams", "Grams CO2e charged to the job.", lambda run: run.account.spent_g),
        )
        for name, said, total in counters:
            family = CounterMetricFamily(f"carbonsched_{name}", said, labels=labels)
            for run in runs:
                family.add_metric(keys[run.id], total(run))
            yield family
        gauges: tuple[tuple[str, str, Callable[[JobRun], float | None]], ...] = (
            ("job_budget_grams", "What the job may emit in all.", lambda run: run.budget_g),
            ("job_budget_remaining_grams", "Budget less what was charged, the unknown at its worst.", _left),
            ("job_power_watts", "Power of the job's devices, its part.", lambda run: run.process.power_w),
            ("job_rho_ratio", "Directed share of full fine-tuning's FLOPs.", self._rho),
        )
        for name, said, read in gauges:
            yield _gauge(f"carbonsched_{name}", said, labels, [(keys[run.id], read(run)) for run in runs])

    def _rho(self, run: JobRun) -> float | None:
        directive = run.directive
        return directive.rho if run.alive and directive is not None and self.readable(run) else None

    def _pools(self) -> Iterator[Metric]:
        view = self.supervisor.pools.view(list(self.supervisor.runs.values())).pools
        for name, said, values in (
            ("granted_grams", "What the pool was granted in all.", [p.granted_g for p in view]),
            (
                "remaining_grams",
                "What the pool was granted less what its jobs spent.",
                [p.left_g for p in view],
            ),
        ):
            rows = [((pool.name,), value) for pool, value in zip(view, values, strict=True)]
            yield _gauge(f"carbonsched_pool_{name}", said, ("pool",), rows)

    def _daemon(self) -> Iterator[Metric]:
        supervisor, pending = self.supervisor, self.supervisor.pending
        yield InfoMetricFamily("carbonsched_build", "The daemon's version.", {"version": __version__})
        yield _histogram(
            "carbonsched_tick_duration_seconds",
            "One tick, with the wait for the lock.",
            supervisor.counters.ticks,
        )
        late = CounterMetricFamily("carbonsched_late_ticks", "Ticks that came late; see power.tick_s.")
        late.add_metric((), supervisor.tick_interval.late)
        yield late
        yield _histogram(
            "carbonsched_lock_held_seconds",
            "One hold of the lock that ticks and requests share.",
            supervisor.lock.held,
        )
        yield _histogram(
            "carbonsched_ledger_write_duration_seconds", "One write of rows to the ledger.", pending.writes
        )
        yield _histogram(
            "carbonsched_ledger_sync_duration_seconds",
            "One wait until the disk has what was written.",
            pending.syncs,
        )
        for name, said, value in (
            (
                "tick_interval_seconds",
                "How often a tick is due: power.tick_s.",
                supervisor.config.power.tick_s,
            ),
            (
                "drained",
                "1: the box is drained and starts no job.",
                float(bool(supervisor.starter.drain.why)),
            ),
            (
                "ledger_pending_rows",
                "Rows in memory that the ledger has refused so far.",
                float(len(pending.rows)),
            ),
        ):
            yield _gauge(f"carbonsched_{name}", said, (), [((), value)])


def _left(run: JobRun) -> float | None:
    return None if run.budget_g is None else run.budget_g - run.charged_g


def _gauge(
    name: str, said: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float | None]]
) -> Metric:
    family = GaugeMetricFamily(name, said, labels=labels)
    for key, value in rows:
        if value is not None:
            family.add_metric(key, value)
    return family


def _histogram(name: str, said: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, said, buckets=histogram.cumulative(), sum_value=histogram.sum_s)

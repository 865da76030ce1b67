"""Lets a supervisor tick through hours of injected time while clients ask its API without pause: nothing of it may grow.

    PYTHONPATH=.:tests python -m support.soak [--hours 8] [--requests 100000] [--clients 4]

Supervisor, ledger, planner and HTTP over the socket are real; time, the boards and the trainers are played, so that eight hours take
minutes. Two boards always have a job that trains; clients list, show, follow logs, report, submit and cancel. Open files, threads and
resident memory are noted twenty times. The exit code is 1 where they are more at the end than after the first tenth.
"""

import argparse
import gc
import http.client
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from support.auto import Auto
from support.box import serving
from support.rig import Rig, checked, spec

from benchmarks.daemon_with_many import Connection

MOST_MB = 10.0
"""Resident memory may grow by so much: caches fill up to their bounds."""
SAMPLES, WARM = 20, 2
IDLE_S = 2.0
"""A connection that was idle for so long is made anew: on a busy machine the server may have timed it out."""
AFRESH = 50
"""Requests on one connection, then a new one."""
READS = (
    "/v1/jobs",
    "/v1/jobs/latest",
    "/v1/jobs/latest/log",
    "/v1/grid",
    "/v1/pools",
    "/v1/version",
    "/v1/drain",
    "/metrics",
    "/v1/report?job=latest",
    "/v1/jobs/no-such-job",
)


@dataclass
class Sample:
    """What this process held at one moment."""

    hours: float
    requests: int
    files: int
    threads: int
    rss_mb: float


@dataclass
class Soak:
    """One run.

    Example::

        found = Soak(folder, hours=0.1, requests=500).run()
        assert found.grown() == []
    """

    folder: Path
    hours: float
    requests: int
    clients: int = 4
    answered: dict[int, int] = field(default_factory=dict)
    """Status → answers."""
    samples: list[Sample] = field(default_factory=list)
    told: Callable[[Sample], None] = lambda sample: None
    """Called with each sample."""
    _asked_s: dict[http.client.HTTPConnection, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> "Soak":
        rig = Rig(self.folder, devices=2, extra={"launch": {"slots": 2}})
        seconds = round(self.hours * 3600)
        asked = json.dumps({"spec": spec(budget_g=100.0).dump(), "checked": checked().dump()})
        with serving(rig.service, self.folder / "api.sock") as socket:
            threads = [
                threading.Thread(target=self._client, args=(socket, n, asked)) for n in range(self.clients)
            ]
            for thread in threads:
                thread.start()
            for second in range(seconds):
                self._keep_busy(rig)
                rig.run(1)
                if (second + 1) % max(seconds // SAMPLES, 1) == 0:
                    while any(thread.is_alive() for thread in threads) and (
                        sum(self.answered.values()) < self.requests * (second + 1) // seconds
                    ):
                        time.sleep(0.01)  # the clients are behind; both come to their end together
                    self._sample((second + 1) / 3600)
            for thread in threads:
                thread.join()
        rig.supervisor.flush()
        assert rig.ledger.verify().ok
        rig.die()
        return self

    def _keep_busy(self, rig: Rig) -> None:
        rig.autos[:] = [auto for auto in rig.autos if not auto.over]
        while len(rig.autos) < 2:
            Auto(rig.submit(spec(budget_g=100.0), checked()))
        if len(rig.launcher.asked) > 1000:
            rig.launcher.asked.clear()

    def _client(self, socket: Path, seed: int, asked: str) -> None:
        chance, connection = random.Random(seed), Connection(socket)
        for n in range(self.requests // self.clients):
            if n % AFRESH == 0:
                connection.close()
            if chance.random() < 0.01:
                status, body = self._ask(connection, "POST", "/v1/jobs", asked)
                if status == 201:
                    self._ask(connection, "POST", f"/v1/jobs/{json.loads(body)['id']}/cancel")
            else:
                self._ask(connection, "GET", chance.choice(READS))
        connection.close()

    def _ask(
        self, connection: http.client.HTTPConnection, method: str, route: str, body: str | None = None
    ) -> tuple[int, bytes]:
        if self._asked_s.get(connection, 0.0) < time.monotonic() - IDLE_S:
            connection.close()  # the server has closed it, or is about to
        try:
            connection.request(method, route, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
        except ConnectionError:  # the server has just closed it as idle
            connection.close()
            connection.request(method, route, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
        data = answer.read()
        self._asked_s[connection] = time.monotonic()
        with self._lock:
            self.answered[answer.status] = self.answered.get(answer.status, 0) + 1
        return answer.status, data

    def _sample(self, hours: float) -> None:
        gc.collect()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        self.samples.append(
            Sample(
                round(hours, 3),
                sum(self.answered.values()),
                len(os.listdir("/proc/self/fd")),  # noqa: PTH208
                threading.active_count(),
                round(int(status["VmRSS"].split()[0]) / 1024, 1),
            )
        )
        self.told(self.samples[-1])

    def grown(self) -> list[str]:
        """What there is more of at the end than after the first tenth, in words."""
        first, last = self.samples[WARM - 1], self.samples[-1]
        found = [
            f"{name}: {a} → {b}"
            for name, a, b, slack in (
                # a client's new connection may be open beside its old one
                ("files", first.files, last.files, 2 * self.clients),
                ("threads", first.threads, last.threads, 0),
                ("rss_mb", first.rss_mb, last.rss_mb, MOST_MB),
            )
            if b > a + slack
        ]
        found += [f"status {status}: {n}" for status, n in self.answered.items() if status >= 500]
        return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=8.0, help="of injected time, a tick a second")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="carbonsched-soak-") as name:
        began = time.monotonic()

        def tell(sample: Sample) -> None:
            seconds = time.monotonic() - began
            left = seconds * (options.hours / sample.hours - 1)
            sys.stderr.write(f"{sample}, {seconds:.0f} s, about {left:.0f} s left\n")

        soak = Soak(Path(name), options.hours, options.requests, options.clients, told=tell)
        soak.run()
    found = {
        "seconds": round(time.monotonic() - began),
        "answered": soak.answered,
        "samples": [asdict(sample) for sample in soak.samples],
        "grown": soak.grown(),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 1 if found["grown"] else 0


if __name__ == "__main__":
    sys.exit(main())

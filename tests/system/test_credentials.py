"""A feed's key that systemd hands to the daemon alone: it reaches the feed, and nothing else ever shows it."""

import json

from support.installed import CONFIG, UNIT
from support.machine import Machine

KEY = "s3cret-of-the-feed-5f2c"
FEED = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlparse

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/root/asked", "a") as file:
            file.write(f"{self.headers.get('Authorization')}\\n")
        asked = parse_qs(urlparse(self.path).query)
        now = float(asked.get("time", asked.get("end", [str(time.time())]))[0])
        series = {"metric": {}, "value": [now, "321"]}
        kind = "vector"
        if "query_range" in self.path:
            start, step = float(asked["start"][0]), float(asked["step"][0])
            kind, series = "matrix", {"metric": {}, "values": [[start + n * step, "321"] for n in range(int((now - start) // step) + 1)]}
        body = json.dumps({"status": "success", "data": {"resultType": kind, "result": [series]}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", 9090), Handler).serve_forever()
"""
FEEDS = """
[[feeds]]
provider = "prometheus"
url = "http://127.0.0.1:9090"
query = "avg(intensity)"
basis = "average-direct"
token_credential = "grid"
"""
LINES = "[Service]\\nLoadCredential=grid:/root/grid.token\\n"


def test_it_reaches_the_feed_and_no_log(box: Machine) -> None:
    (box.root / "root/feed.py").write_text(FEED)
    (box.root / "root/grid.token").write_text(KEY + "\n")
    box.run("chmod 600 /root/grid.token && cp -p /etc/carbonsched/config.toml /root/config.before")
    box.run("systemd-run --unit=a-feed --collect python3 /root/feed.py")
    box.until("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 9090))'")
    config = box.root / CONFIG.lstrip("/")
    before, _, behind = config.read_text().partition("[[feeds]]")
    config.write_text(before + FEEDS + "[power]" + behind.partition("[power]")[2])
    box.run(
        f"mkdir -p /etc/systemd/system/{UNIT}.d && printf '{LINES}' > /etc/systemd/system/{UNIT}.d/key.conf && systemctl daemon-reload"
    )
    try:
        box.until(f"systemctl restart {UNIT}", 30)
        box.until("grep -q . /root/asked && carbonsched grid --json | grep -q '\"g_per_kwh\": 321'", 60)
        asked = set((box.root / "root/asked").read_text().splitlines())
        assert asked == {f"Bearer {KEY}"}
        shown = [
            box.run("journalctl -b --no-pager -o json --all").stdout,
            box.run(
                f"systemctl show {UNIT}; systemctl status --no-pager -l {UNIT}; systemctl cat {UNIT}"
            ).stdout,
            box.run(
                "for name in grid ps version pools; do carbonsched $name --json; done; carbonsched doctor || true"
            ).stdout,
            box.run("carbonsched report --from 2026-01-01 --format json").stdout,
            box.run(f"tr '\\\\0' '\\\\n' < /proc/$(systemctl show -P MainPID {UNIT})/environ").stdout,
        ]
        for text in shown:
            assert text
            assert KEY not in text
        kept = box.run(
            "grep -rlF -f /root/grid.token /var/lib/carbonsched /var/log /etc /tmp /var/tmp /run/carbonsched",
            check=False,
        )
        assert kept.stdout == ""
        credential = f"/run/credentials/{UNIT}/grid"
        assert box.run(f"cat {credential}", user="alice", check=False).returncode != 0
        assert json.loads(box.run("carbonsched grid --json").stdout)["feeds"][0]["state"] == "ok"
    finally:
        box.run(
            f"rm -r /etc/systemd/system/{UNIT}.d && cp -p /root/config.before {CONFIG} && systemctl daemon-reload"
        )
        box.run(f"systemctl stop a-feed; systemctl restart {UNIT}", timeout=200)
        box.until("carbonsched ps", 60)

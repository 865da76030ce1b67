"""Asks a real daemon some 20,000 times, whatever Schemathesis makes of the OpenAPI document: no 5xx, no answer later than a minute.

Run by hand: Schemathesis brings much along, so it has an environment of its own.

    python -m venv /tmp/st && /tmp/st/bin/pip install "schemathesis>=4,<5"
    python benchmarks/api_fuzz.py --st /tmp/st/bin/st

The requests come over `api.tcp` with a token, as the user nobody, so all operations are reached; jobs that are submitted wait, since
no trainer is there. The exit code is Schemathesis's own: 0 where it found nothing.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START_S = 300.0
CONFIG = """
state_dir = "state"
[[feeds]]
provider = "static"
g_per_kwh = 300
basis = "average-lifecycle"
source = "made up"
[power]
gpu = "none"
host = "auto"
[api]
socket = "api.sock"
tcp = "127.0.0.1:{port}"
token_file = "token"
token_user = "nobody"
[launch]
python = "/bin/false"
"""
TOKEN = "made-up-token"  # noqa: S105


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--st", default="st", help="the command of Schemathesis")
    parser.add_argument("--examples", type=int, default=1600, help="requests of each operation, about")
    asked = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="carbonsched-fuzz-") as name:
        folder = Path(name)
        (folder / "config.toml").write_text(CONFIG.format(port=port))
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        with (folder / "daemon.log").open("wb") as log:
            argv = [sys.executable, "-m", "carbonsched", "daemon", "--config", str(folder / "config.toml")]
            daemon = subprocess.Popen(argv, stderr=log)
        try:
            deadline = time.monotonic() + START_S
            while not (folder / "api.sock").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            code = run(asked.st, port, asked.examples)
            if daemon.poll() is not None:
                print("the daemon has ended:", (folder / "daemon.log").read_text(), file=sys.stderr)
                return 1
            return code
        finally:
            daemon.terminate()
            daemon.wait()


def run(st: str, port: int, examples: int) -> int:
    options = {
        "--header": f"Authorization: Bearer {TOKEN}",
        "--checks": "not_a_server_error",
        "--phases": "coverage,fuzzing",
        "--max-examples": str(examples),
        "--workers": "1",
        "--request-timeout": "60",
        "--wait-for-schema": "60",  # TCP is opened after the socket
        "--suppress-health-check": "all",
    }
    words = [word for option in options.items() for word in option]
    return subprocess.run(
        [st, "run", f"http://127.0.0.1:{port}/v1/openapi.json", *words],
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    ).returncode


if __name__ == "__main__":
    sys.exit(main())

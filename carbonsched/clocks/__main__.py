"""`python -m carbonsched.clocks serve | reset`: the helper, and the reset of the clocks that a killed helper left locked."""

import argparse
import logging
import sys
from pathlib import Path

from carbonsched.clocks.guard import guard, reset_all
from carbonsched.errors import CarbonschedError
from carbonsched.systemd_notify import Notifier

FOLDER = Path("/run/carbonsched-clocks")


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m carbonsched.clocks")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="lock and reset clocks for the daemon")
    serve.add_argument("--user", default="carbonsched", help="the daemon's user, who may ask beside root")
    serve.add_argument("--socket", type=Path, default=FOLDER / "helper.sock")
    for command in (serve, commands.add_parser("reset"), commands.add_parser("guard")):
        command.add_argument("--locked", type=Path, default=FOLDER / "locked", help="file of what is locked")
    given = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    if given.command == "guard":
        return guard(given.locked)
    if given.command == "reset":
        return reset_all(given.locked)
    from carbonsched.clocks.helper import Helper, uid_of

    try:
        helper = Helper(given.socket, given.locked, {uid_of(given.user)})
        notifier = Notifier.from_env()
        helper.run(lambda: notifier.ready(f"clocks, {given.socket}"))
    except (CarbonschedError, OSError) as e:
        sys.stderr.write(f"{e}\n")
        return e.exit_code if isinstance(e, CarbonschedError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

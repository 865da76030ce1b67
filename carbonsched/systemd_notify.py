"""Tells systemd that the daemon is ready, alive, reloading or stopping (sd_notify(3), sd_watchdog_enabled(3)).

One datagram of `KEY=value` lines to the Unix socket that $NOTIFY_SOCKET names. Outside systemd everything here is a
no-op, and a systemd that does not listen never stops the daemon.
"""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notifier:
    """Sends what systemd wants to hear; a no-op where nobody listens.

    Example:
        >>> systemd = Notifier.from_env({})
        >>> systemd.ready("metering 2 devices")  # outside systemd nothing happens
        >>> systemd.watchdog_s is None
        True
    """

    address: str | None = None
    """Of the notification socket: a path, or `@name` for an abstract one; None: nobody listens."""
    watchdog_s: float | None = None
    """systemd kills the daemon when it hears no `watchdog()` for this long; None: no watchdog. Ping at half of it."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Notifier":
        """From $NOTIFY_SOCKET, $WATCHDOG_USEC and $WATCHDOG_PID, which may name another process."""
        address = env.get("NOTIFY_SOCKET") or None
        usec, pid = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", str(os.getpid()))
        meant = address is not None and usec.isdigit() and int(usec) > 0 and pid == str(os.getpid())
        return cls(address, int(usec) / 1e6 if meant else None)

    def ready(self, status: str = "") -> None:
        """Started, or done reloading."""
        self._send("READY=1", *([f"STATUS={_line(status)}"] if status else []))

    def starting(self, what: str, seconds: float) -> None:
        """What the start is at; it may take so much longer from now on (EXTEND_TIMEOUT_USEC)."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", f"STATUS={_line(what)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def reloading(self) -> None:
        """A reload begins; `ready()` ends it. The time lets systemd match the two (Type=notify-reload)."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """The daemon is alive and makes progress; sent only where systemd set a watchdog."""
        if self.watchdog_s is not None:
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if self.address is None:
            return
        target = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)
                sender.sendto("\n".join(lines).encode(), target)
        except OSError:
            return  # the daemon does its work whether or not anybody listens


def _line(text: str) -> str:
    return " ".join(text.split())

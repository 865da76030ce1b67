"""Names the running boot of the machine: an energy counter, or a baseline of its load, is valid within one boot only."""

from pathlib import Path


def boot_id() -> str:
    """8 hex digits of the kernel's boot id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]

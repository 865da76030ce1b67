"""This boot's name: what the life of a counter, or of a load baseline, is bound to."""

from pathlib import Path


def boot_id() -> str:
    """8 hex digits of the kernel's boot id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]

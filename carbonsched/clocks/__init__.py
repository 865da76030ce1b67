"""The helper that locks boards' graphics clocks: a process of its own, root, with that one right (docs/install.md).

request   what may be asked of it, read strictly
boards    NVML: supported clocks, locking, and who computes on a board
leases    what is locked, for whom and until when, and the file that outlives the helper
helper    answers on a Unix socket whom the kernel says is allowed
guard     a second process that resets the clocks of a helper that was killed
client    the daemon's side: asks, and renews as long as the daemon ticks

The helper imports the standard library, `carbonsched.errors` and `carbonsched.systemd_notify`, and pynvml.
"""

"""The helper that locks boards' graphics clocks: a separate process that runs as root, with this right only (docs/install.md).

request   the requests to it, read strictly
boards    NVML: supported clocks, locking, and who computes on a board
leases    which boards are locked, for whom and until when, and the file that survives the helper
helper    serves a Unix socket to the users that the kernel identifies as allowed
guard     a second process that resets the clocks of a helper that was killed
client    the daemon's side: sends requests, and renews them as long as the daemon ticks

The helper imports the standard library, `carbonsched.errors` and `carbonsched.systemd_notify`, and pynvml.
"""

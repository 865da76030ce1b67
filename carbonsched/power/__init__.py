"""Joules of every device: what was used since the last look, by whom it was measured, and what is not known.

base         Device, Mark and the Meter protocol
counter      PURE: samples of one device made into deltas: epochs, resets, bridges over restarts, clock steps
boot         the name of this boot
nvml         NVIDIA devices by their energy counter
host         CPU and RAM by codecarbon's hardware classes
replay       a recorded power curve whose counter runs on wall time
combined     several meters as one
factory      which meters the config asks for
attribution  PURE: a delta split in time or shared among jobs, to the millijoule
"""

from carbonsched.power.factory import build_meter

__all__ = ["build_meter"]

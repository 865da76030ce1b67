"""Meters the energy of every device: joules since the last reading, how they were measured, and what is not known.

base         Device, Mark, the Meter protocol and what all settings of meters are
counter      PURE: samples of one device made into deltas: epochs, resets, bridges over restarts, clock steps
sample       PURE: one reading of a device, and the time from one to the next
power_trace  PURE: power readings of one device integrated from one sample to the next
power_sampler  reads the power of boards without an energy counter many times between two samples
boot_id      the name of this boot
board_meter  boards by their energy counter, through whichever vendor's driver
nvml         settings of the NVML meter
nvml_meter   NVIDIA's boards, by NVML
amd          settings of the AMD meter
amd_driver   AMD's boards, by AMD SMI
intel        settings of the Intel meter
intel_driver  Intel's boards, by the files of their kernel drivers
nvml_boards  what NVML tells of a board: its name, limits, MIG instances, and who else uses it
boards       PURE: which of a box's boards are ours
peak_flops   PURE: a board's rated FLOP/s
host         settings of the host's meter
host_meter   CPU and RAM by RAPL or codecarbon's models
host_model   asks codecarbon once, in a process of its own, what the box is
rapl_dram    the memory's own energy counters
replay       a recorded power curve whose counter runs on wall time, and its settings
combined     several meters as one
config       `[power]` of the config
factory      builds the meters that the config asks for
attribution  PURE: a delta split in time or shared among jobs, to the millijoule
cpu_share    PURE: which part of a host's energy is whose, by CPU time
"""

from carbonsched.power.factory import build_meter

__all__ = ["build_meter"]

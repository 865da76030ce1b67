"""An example of a plugin for carbonsched.

feed           a grid feed: one intensity, read from a JSON file that something else on the box keeps up to date
meter          a power meter: the watts of a hwmon sensor, as the Linux kernel shows them
method         a training method: the norms alone are trained
report_format  a report format: the sums in one line
"""

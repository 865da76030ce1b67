"""How dirty the grid is: where it is asked, what is believed, and what stands in when nobody answers.

base    Feed and Answer
http    one careful way to ask over the network
trace   a recorded intensity, as CSV
replay  a trace played back on wall time
neso    Great Britain, National Energy System Operator
static  a constant: a country's yearly mix, or a figure of the user's
chain   the feeds in order of trust: polling, staleness, refusal of the absurd
factory  which feeds the config asks for
"""

from carbonsched.feeds.chain import Chain
from carbonsched.feeds.factory import build_chain

__all__ = ["Chain", "build_chain"]

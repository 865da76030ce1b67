"""Finds out how dirty the grid is: asks providers, decides whom to believe, and falls back when nobody answers.

base       ValueFeed, Feed, Answer, the keys that all feeds take, and the box a feed is built for
zone       the grid zone of the box: the config's [zone]
transport  what a feed needs of the network
http       asks over the network with requests, carefully
limits     keeps the request limits that providers state
secrets    reads tokens and passwords from where they are kept
raw_bodies  keeps what providers answered, by hash
http_settings  the keys that those over HTTP take
provider   what the feeds over HTTP share
entso_e_documents  documents of ENTSO-E's platform, whatever they tell of
entso_e_borders    which bidding zones power flows between
login      what those share whose provider lends a token for a password
columns    recorded values of any kind, as CSV
playback   recorded values of any kind played back on wall time
constant   one value of any kind, whatever the hour
trace      a recorded intensity, as CSV
exports    CSV files that providers export, known by their headers
replay     a trace of intensities played back, and its settings
generation_mix  an intensity made of what generates, and its factors
consumption_mix  an intensity of what is used: a generation mix and what flows in
static     a constant: a country's yearly mix, or a figure of the user's; and its settings
plausibility  which readings are believed
value_chain  the feeds in order of trust: polling, staleness, refusal of the absurd
chain      the same of intensities: one basis, and forecasts
countries  countries by their codes and names
providers/  those who are asked over HTTP, one file each
supply/    what the site's own supply gives
prices/      what a kWh costs: sources of prices, one file each
pue_feed   the facility's PUE, of a Prometheus
setup/     which feeds suit a place, offline
factory    builds the feeds that the config asks for
"""

from carbonsched.feeds.chain import Chain
from carbonsched.feeds.factory import build_chain

__all__ = ["Chain", "build_chain"]

"""Finds out how dirty the grid is: asks providers, decides whom to believe, and falls back when nobody answers.

The chain and its feeds:

factory    builds the feeds that the config asks for
value_chain  polls feeds in order of trust; decides which value holds
chain      the same for intensities: one basis, and forecasts
plausibility  decides which readings are believed
base       the feed protocols, the keys that all feeds take, and the box a feed is built for
providers/  providers that are polled over HTTP, one file each
prices/    prices of a kWh, one file per source
supply/    the site's own supply, one file per source
pue_feed   the facility's PUE, from a Prometheus
static     a constant: a country's yearly mix or the user's figure; and its settings
constant   one value of any kind, whatever the hour
replay     plays back a trace of intensities, and its settings
setup/     which feeds suit a place, offline

Shared by feeds over HTTP:

provider   address, limits, requests, readings with their source
http_settings  their keys
login      providers that issue a token for a password
transport  what a feed needs of the network
http       the network, by requests
limits     enforces the providers' request limits
secrets    reads tokens and passwords from where they are kept
raw_bodies  stores the providers' answers by hash

Intensities from generation:

generation_mix  the intensity of a generation mix, and its factors
consumption_mix  the same with imports over the borders
entso_e_documents  reads ENTSO-E's documents
entso_e_borders    which bidding zones power flows between

Files and names:

columns    recorded values of any kind, as CSV
playback   recorded values of any kind, played back on wall time
trace      a recorded intensity, as CSV
exports    CSV files that providers export, recognised by their headers
zone       the grid zone of the box: the config's [zone]
countries  countries by their codes and names
"""

from carbonsched.feeds.chain import Chain
from carbonsched.feeds.factory import build_chain

__all__ = ["Chain", "build_chain"]

"""Finds out how dirty the grid is: asks providers, decides whom to believe, and falls back when nobody answers.

base       Feed, Answer, the keys that all feeds take, and the box a feed is built for
zone       the grid zone of the box: the config's [zone]
transport  what a feed needs of the network
http       asks over the network with requests, carefully
limits     keeps the request limits that providers state
secrets    reads tokens and passwords from where they are kept
raw_bodies  keeps what providers answered, by hash
provider   what the feeds over HTTP share
login      what those share whose provider lends a token for a password
trace      a recorded intensity, as CSV
exports    CSV files that providers export, known by their headers
replay     a trace played back on wall time, and its settings
electricity_maps  most of the world, Electricity Maps, and its settings
generation_mix  an intensity made of what generates, and its factors
eia        United States, form EIA-930, and its settings
entso_e    Europe, ENTSO-E's transparency platform, and its settings
neso       Great Britain, National Energy System Operator, and its settings
energy_charts  Europe's countries, Fraunhofer ISE, and its settings
energi_data_service  Denmark, Energinet, and its settings
rte  France, éCO2mix of RTE, and its settings
carbon_aware_sdk  a Web API of the Carbon Aware SDK, and its settings
open_electricity  regions of Australia, Open Electricity, and its settings
wattnet    zones of Europe, wattnet.eu, and its settings
watttime   WattTime, marginal or average, and its settings
prometheus  a site's own figures, asked of its Prometheus; and its settings
static     a constant: a country's yearly mix, or a figure of the user's; and its settings
plausibility  which readings are believed
chain      the feeds in order of trust: polling, staleness, refusal of the absurd
countries  countries by their codes and names
places     the grid zone of a place, offline
coverage   which provider covers a zone, and what it costs and lacks
proposal   the chain of feeds for a place
factory    builds the feeds that the config asks for
"""

from carbonsched.feeds.chain import Chain
from carbonsched.feeds.factory import build_chain

__all__ = ["Chain", "build_chain"]

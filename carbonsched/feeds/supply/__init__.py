"""What the site's own supply gives the box: solar, a battery, a contract. It scales the grid's intensity.

base        the keys that all its feeds take, what a kWh of it emits, and which readings are believed
prometheus  any query
replay      a recording, CSV
static      a share or a power that the user states
chain       its feeds in order of trust, for how long what they say holds, and what `grid` shows
factory     builds the chain that the config asks for
"""

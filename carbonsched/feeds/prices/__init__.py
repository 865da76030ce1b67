"""What a kWh costs: those who publish the day-ahead market's prices, and a tariff of the user's. One file each.

base                 the keys that all take, and what those over HTTP share
energi_data_service  Denmark, Energinet
energy_charts        Europe's bidding zones, Fraunhofer ISE
entso_e              Europe's bidding zones, ENTSO-E's transparency platform
replay               prices of the past, played back
static               a tariff: one price for all hours
factory              builds the chain that the config asks for
"""

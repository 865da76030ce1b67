"""Each provider that is asked over HTTP: its settings, its limits, what its values mean, and the reading of its answers.

carbon_aware_sdk     a Web API of the Carbon Aware SDK
eia                  United States, form EIA-930
electricity_maps     most of the world, Electricity Maps
energi_data_service  Denmark, Energinet
energy_charts        Europe's countries, Fraunhofer ISE
entso_e              Europe, ENTSO-E's transparency platform
neso                 Great Britain, National Energy System Operator
open_electricity     regions of Australia, Open Electricity
prometheus           a site's own figures, asked of its Prometheus
rte                  France, éCO2mix of RTE
wattnet              zones of Europe, wattnet.eu
watttime             WattTime, marginal or average
"""

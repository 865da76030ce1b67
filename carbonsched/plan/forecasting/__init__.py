"""Turns readings and forecasts of the grid into the slots that the planner works on. Knows no solver.

slots              readings and forecasts as time slots with quantiles
blend              past and provider blended into one expectation; weights and errors are learned
provider_forecast  a provider's forecasts as arrays, each known from the time it was issued
combination        two providers' forecasts made into one, weighed by how right both were
scores             how right a provider's forecasts were: error by horizon, bias, persistence
archive            each provider's forecasts as they were issued, and what came
prices             what a kWh will cost, put into the slots
without_forecast   plans with a reference intensity where there is no usable forecast
"""

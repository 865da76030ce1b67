"""The daemon's HTTP API on a Unix socket: routes, peer credentials, and the server that runs beside the ticks.

service     the operations that the API needs of the supervisor
app         FastAPI routes under /v1, errors as one JSON `ErrorBody`
request_limit  the number of slow requests that run at a time
logs        a bounded part of a job's log
tcp         the listener on loopback: host, origin and token of a request
connection  identifies the client, and closes idle and half-open connections
server      binds socket and listener, starts and stops
"""

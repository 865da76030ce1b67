"""The daemon's HTTP API on a Unix socket: routes, peer credentials, and the server that runs beside the ticks.

service     what the API needs of the supervisor
app         FastAPI routes under /v1, errors as one JSON `ErrorBody`
request_limit  how many slow requests go on at a time
logs        a bounded piece of a job's log
tcp         the listener on loopback: host, origin and token of a request
connection  knows who is on the other end, and ends what is idle or half open
server      binds socket and listener, starts and stops
"""

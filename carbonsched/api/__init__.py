"""The daemon's HTTP API on a Unix socket: routes, peer credentials, and the server that runs beside the ticks.

service  what the API needs of the supervisor
app      FastAPI routes under /v1, errors as one JSON `ErrorBody`
logs     a bounded piece of a job's log
server   binds the socket, knows who is on its other end, starts and stops
"""

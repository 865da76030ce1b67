# The daemon of this box, not one in the session's own runtime directory.
export CARBONSCHED_SOCKET=${CARBONSCHED_SOCKET:-/run/carbonsched/api.sock}

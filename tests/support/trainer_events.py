"""Events as a trainer says them, whole and in bounds."""

AT = "2026-11-22T10:00:00.000Z"
READY = {
    "at": AT,
    "event": "segment_ready",
    "k": 0,
    "segments": 4,
    "first_step": 0,
    "steps": 10,
    "steps_left": 40,
    "importance_batches": 1,
    "frontier": [{"rho": 0.4, "importance": 0.1}, {"rho": 1.0, "importance": 1.0}],
    "flops_full": 1e12,
    "rho_floor": 0.4,
}
DONE = {
    "at": AT,
    "event": "segment_done",
    "k": 0,
    "first_step": 0,
    "steps": 10,
    "rho_directed": 0.5,
    "rho_planned": 0.5,
    "rho_realised": 0.5,
    "flops": 1e12,
    "flops_full": 2e12,
    "loss": None,
    "seconds": 1.0,
    "importance_seconds": 0.1,
    "selection_seconds": 0.1,
    "selected": [],
    "directive_seq": None,
}

"""dockerd's own innards: command line, memory and goroutines, which may hold secrets."""

from __future__ import annotations

from policy.dockerapi.model import Operation, Outcome
from policy.dockerapi.table.row import Route, integer

ROUTES = tuple(
    Route(
        method=method,
        template=f"/debug/{page}",
        operation=Operation.DEBUG,
        outcome=Outcome.ADMIN,
        collective=True,
        versioned=False,
        query=integer("seconds", "debug", "gc"),
    )
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE")  # Debian's 20.10 serves any method
    for page in ("vars", "pprof/", "pprof/{name...}")
)

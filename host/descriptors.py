"""How many files, sockets among them, this process may have open."""

from __future__ import annotations

import resource


def raise_limit() -> None:
    """Take as many as root permits: the usual soft limit, 1024, is there for select(2), which nothing here uses."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

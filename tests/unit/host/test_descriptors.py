"""The limit on open files goes up to what root permits, and no further."""

from __future__ import annotations

import resource

from host.descriptors import raise_limit


def test_the_soft_limit_becomes_the_hard_one() -> None:
    """Whatever it was."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

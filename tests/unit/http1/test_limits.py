"""The limits belong together."""

from __future__ import annotations

from http1.limits import Limits


def test_defaults_agree() -> None:
    """A JSON body stays visible to every engine's plugin, and one user cannot fill a shared socket."""
    limits = Limits()
    assert limits.json_body_bytes < 2**20
    assert limits.low_water_bytes < limits.high_water_bytes
    assert limits.connections_per_uid < limits.connections

"""The errors are told apart by who can act."""

from __future__ import annotations

from http1.errors import BadRequest, BadResponse, ClientGone, UpstreamError, UpstreamLost, UpstreamUnavailable


def test_families() -> None:
    """Upstream failures are one family; only UpstreamUnavailable promises that nothing happened."""
    assert issubclass(BadResponse, UpstreamLost)
    assert issubclass(UpstreamLost, UpstreamError)
    assert issubclass(UpstreamUnavailable, UpstreamError)
    assert not issubclass(UpstreamUnavailable, UpstreamLost)
    assert not issubclass(BadRequest, UpstreamError)
    assert not issubclass(ClientGone, UpstreamError)
